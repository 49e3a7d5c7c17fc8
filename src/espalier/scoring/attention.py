"""Attention masks of packed trees, made on the device from one number per token.

transformers hands a mask of four dimensions through as it is, so a sliding window is applied here. A model whose layers
differ (full and sliding) takes one mask for each kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from espalier.errors import UserError

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Attention:
    """What the layers of a model may see.

    Attributes:
        windows: Sliding window of each kind of layer in tokens; None sees everything before it.
        dtype: Type of the mask.
    """

    windows: Mapping[str, int | None]
    dtype: torch.dtype

    @classmethod
    def of(cls, model: PreTrainedModel) -> Attention:
        """Read the kinds of attention from a model.

        Raises:
            UserError: If the model's attention takes no mask, or there is a kind that is not known here.
        """
        config = model.config
        implementation = getattr(config, "_attn_implementation", None) or "eager"
        if implementation not in {"eager", "sdpa"}:
            raise UserError(
                f"attention implementation {implementation!r} takes no mask of packed requests; use 'sdpa' or 'eager'"
            )
        # The key may be left over from another architecture, whose layers it means nothing to.
        has_window = "sliding_window" in inspect.signature(type(config)).parameters
        window = config.sliding_window if has_window else None
        kinds = set(getattr(config, "layer_types", None) or [_SLIDING if window else _FULL])
        if unknown := kinds - {_FULL, _SLIDING}:
            raise UserError(
                f"the model has layers of {', '.join(sorted(unknown))}; only full and sliding are evaluated"
            )
        return cls({kind: window if kind == _SLIDING else None for kind in sorted(kinds)}, model.dtype)

    def mask(self, depth: torch.Tensor, end: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Make the mask of a batch.

        Args:
            depth: Position of each token in its sequence: (rows, width).
            end: First later token of the row that does not see this one: (rows, width).

        Returns:
            0 where a token (third dimension) sees another (fourth), else the lowest number of the type: (rows, 1,
            width, width). For layers that differ, one for each kind.
        """
        masks = {kind: _additive(visible(depth, end, window), self.dtype) for kind, window in self.windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))


def visible(depth: torch.Tensor, end: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Return whether token i sees token j: (rows, i, j)."""
    index = torch.arange(end.shape[1], device=end.device)
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < end[:, None, :])
    if window is not None:
        seen &= depth[:, :, None] - depth[:, None, :] < window
    return seen


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn into numbers once what every layer would turn into numbers by itself (`eager` takes nothing else)."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, lowest)[:, None]
