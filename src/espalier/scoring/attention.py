"""Attention masks of packed trees, built on the device from two numbers per token.

transformers passes a mask of four dimensions to the layers unchanged. The sliding window must therefore be part of the
mask. A model with full and sliding layers takes one mask for each type of layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from espalier.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Attention:
    """Attention of the layers of a model.

    Attributes:
        windows: Sliding window in tokens, by the type of layer. None is full attention.
        dtype: Dtype of the mask.
    """

    windows: Mapping[str, int | None]
    dtype: torch.dtype

    @classmethod
    def from_model(cls, model: PreTrainedModel) -> Attention:
        """Read the types of layers and their sliding window from the config of a model.

        Raises:
            UserError: If the attention implementation takes no mask, or the model has a type of layer other than full
                and sliding attention.
        """
        config = model.config
        implementation = getattr(config, "_attn_implementation", None) or "eager"
        if implementation not in {"eager", "sdpa"}:
            raise UserError(
                f"attention implementation {implementation!r} takes no mask of packed requests; use 'sdpa' or 'eager'"
            )
        # A config may have this key although its architecture does not use it. It then has no effect on the model.
        has_window = "sliding_window" in inspect.signature(type(config)).parameters
        window = config.sliding_window if has_window else None
        layer_types = set(getattr(config, "layer_types", None) or [_SLIDING if window else _FULL])
        if unknown := layer_types - {_FULL, _SLIDING}:
            raise UserError(
                f"the model has layers of {', '.join(sorted(unknown))}; only full and sliding are evaluated"
            )
        return cls(
            {layer_type: window if layer_type == _SLIDING else None for layer_type in sorted(layer_types)}, model.dtype
        )

    def mask(self, depth: torch.Tensor, end: torch.Tensor, n_prefix: int = 0) -> torch.Tensor | dict[str, torch.Tensor]:
        """Build the mask of a batch.

        Args:
            depth: Position of each token in its sequence, (rows, width).
            end: Index in the row of the first later token that does not attend to this token, (rows, width).
            n_prefix: Tokens of a prefix that comes before all rows (`espalier.scoring.prefix`).

        Returns:
            Additive mask, (rows, 1, width, n_prefix + width): 0 where token i (third dimension) attends to token j
            (fourth dimension, the prefix first), and the lowest number of the dtype elsewhere. If the model has several
            types of layers, one mask for each type.
        """
        masks = {}
        for kind, window in self.windows.items():
            seen = attends(depth, end, window)
            if n_prefix:
                seen = torch.cat([attends_to_prefix(depth, n_prefix, window), seen], dim=2)
            masks[kind] = _additive(seen, self.dtype)
        return masks if len(masks) > 1 else next(iter(masks.values()))


def attends(depth: torch.Tensor, end: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Return whether token i attends to token j, (rows, width, width) with the axes (row, i, j).

    Args:
        depth: Position of each token in its sequence, (rows, width).
        end: Index in the row of the first later token that does not attend to this token, (rows, width).
        window: Sliding window in tokens. None is full attention.
    """
    index = torch.arange(end.shape[1], device=end.device)
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < end[:, None, :])
    if window is not None:
        seen &= depth[:, :, None] - depth[:, None, :] < window
    return seen


def attends_to_prefix(depth: torch.Tensor, n_prefix: int, window: int | None = None) -> torch.Tensor:
    """Return whether token i attends to token j of a prefix before all rows, (rows, width, n_prefix).

    Args:
        depth: Position of each token in its sequence, the prefix included: (rows, width).
        n_prefix: Tokens of the prefix.
        window: Sliding window in tokens. None is full attention.
    """
    distance = depth[:, :, None] - torch.arange(n_prefix, device=depth.device)
    return distance < window if window is not None else torch.ones_like(distance, dtype=torch.bool)


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask of a boolean mask.

    `eager` attention needs an additive mask. `sdpa` would convert a boolean mask again in every layer.
    """
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, lowest)[:, None]
