"""Priors: what the model loses when one block contributes nothing.

For each decoder layer, attention block and MLP block, on calibration sequences, with the block's residual branch set to
zero (for a layer: both its branches):

    loss_increase   = mean token loss (nats) without the block - with it
    cosine_distance = mean over tokens of 1 - cos(hidden state before, hidden state after the block), model intact

Both are float32. Hidden states before a removed block do not depend on it: they are taken from one intact pass, and
only what follows is computed again, which costs about half of running the whole model for each removal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.gradients.accumulate import check_length
from espalier.models.decoder import decoder_layers
from espalier.progress import Progress

SCOPES = ("layer", "attention", "mlp")


@dataclass(frozen=True)
class Priors:
    """Measurements per sequence, so that any number of first sequences can be averaged.

    Attributes:
        loss_increase: float64, (n_sequences, n_layers, 3), the last axis as in `SCOPES`.
        cosine_distance: The same shape.
    """

    loss_increase: npt.NDArray[np.float64]
    cosine_distance: npt.NDArray[np.float64]

    def rows(self, n_samples: int, n_sequences: int) -> dict[str, list[object]]:
        """Make columns of the priors table: means over the first `n_sequences`, for the setting `n_samples`."""
        loss = self.loss_increase[:n_sequences].mean(axis=0)
        cosine = self.cosine_distance[:n_sequences].mean(axis=0)
        n_layers = loss.shape[0]
        return {
            "n_samples": [n_samples] * (3 * n_layers),
            "layer": [layer for layer in range(n_layers) for _ in SCOPES],
            "scope": list(SCOPES) * n_layers,
            "loss_increase": loss.ravel().tolist(),
            "cosine_distance": cosine.ravel().tolist(),
        }


@dataclass
class _LayerCall:
    """What a decoder layer was called with in the intact pass, and what it did to the residual stream."""

    before: torch.Tensor  # (rows, seq_len, hidden)
    kwargs: dict[str, Any]
    between: torch.Tensor | None = None  # after attention, before the MLP
    after: torch.Tensor | None = None


@torch.inference_mode()
def measure_priors(model: PreTrainedModel, sequences: torch.Tensor, *, token_budget: int) -> Priors:
    """Measure both priors of every layer, attention block and MLP block.

    Args:
        model: A causal language model; unchanged afterwards.
        sequences: Token ids, (n_sequences, seq_len).
        token_budget: Upper bound on tokens in a forward pass.

    Raises:
        UserError: If sequences are longer than the model's context, or a loss is not finite.
    """
    check_length(model, sequences.shape[1])
    layers = decoder_layers(model)
    loss = np.zeros((len(sequences), len(layers), len(SCOPES)))
    cosine = np.zeros_like(loss)
    rows = max(1, token_budget // sequences.shape[1])
    with Progress("priors", total=len(sequences) * len(layers) * len(SCOPES), unit="removals") as progress:
        for start in range(0, len(sequences), rows):
            batch = sequences[start : start + rows].to(model.device)
            here = slice(start, start + len(batch))
            calls, intact = _intact_pass(model, layers, batch)
            for number, call in enumerate(calls):
                cosine[here, number] = _cosine_distances(call)
                for position, hidden in enumerate(_without(layers[number], call)):
                    removed = _loss(model, _rest(layers, calls, number + 1, hidden), batch)
                    loss[here, number, position] = (removed - intact).double().cpu().numpy()
                    progress.advance(len(batch))
    _check_finite(loss)
    return Priors(loss, cosine)


def _intact_pass(
    model: PreTrainedModel, layers: Sequence[nn.Module], batch: torch.Tensor
) -> tuple[list[_LayerCall], torch.Tensor]:
    """Run the whole model once; keep what each layer was called with, and the loss of each sequence."""
    calls: list[_LayerCall] = []

    def keep_call(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        if calls:
            calls[-1].after = args[0]
        calls.append(_LayerCall(args[0], kwargs))

    def keep_attention(_: nn.Module, __: object, output: tuple[torch.Tensor, ...]) -> None:
        calls[-1].between = calls[-1].before + output[0]

    def keep_last(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        calls[-1].after = args[0]

    handles = [model.get_decoder().norm.register_forward_pre_hook(keep_last)]
    for layer in layers:
        handles.append(layer.register_forward_pre_hook(keep_call, with_kwargs=True))
        handles.append(layer.self_attn.register_forward_hook(keep_attention))
    try:
        hidden = model.get_decoder()(input_ids=batch, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return calls, _loss_of_hidden(model, hidden, batch)


def _without(layer: nn.Module, call: _LayerCall) -> Iterator[torch.Tensor]:
    """Yield the residual stream after this layer without the layer, its attention, its MLP."""
    yield call.before
    with _contributing_zero(layer.self_attn, lambda output: (torch.zeros_like(output[0]), *output[1:])):
        yield _first(layer(call.before, **call.kwargs))
    if call.between is None:
        raise RuntimeError("the attention block of a layer was not called")
    yield call.between


@contextmanager
def _contributing_zero(block: nn.Module, zero: Callable[[Any], Any]) -> Iterator[None]:
    handle = block.register_forward_hook(lambda _module, _args, output: zero(output))
    try:
        yield
    finally:
        handle.remove()


def _rest(layers: Sequence[nn.Module], calls: Sequence[_LayerCall], first: int, hidden: torch.Tensor) -> torch.Tensor:
    """Run the layers from `first` on, each with the masks and positions of the intact pass."""
    for layer, call in zip(layers[first:], calls[first:], strict=True):
        hidden = _first(layer(hidden, **call.kwargs))
    return hidden


def _loss(model: PreTrainedModel, residual: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return _loss_of_hidden(model, model.get_decoder().norm(residual), batch)


def _loss_of_hidden(model: PreTrainedModel, hidden: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss of each sequence (nats, float32): (n_rows,)."""
    logits = model.get_output_embeddings()(hidden[:, :-1]).float()
    return nn.functional.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").mean(dim=1)


def _cosine_distances(call: _LayerCall) -> npt.NDArray[np.float64]:
    """Return mean 1 - cosine over tokens for layer, attention and MLP: (n_rows, 3)."""
    if call.between is None or call.after is None:
        raise RuntimeError("a layer of the intact pass was not followed by another or by the final norm")
    pairs = ((call.before, call.after), (call.before, call.between), (call.between, call.after))
    distances = [1 - nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).mean(dim=1) for a, b in pairs]
    values: npt.NDArray[np.float64] = torch.stack(distances, dim=1).double().cpu().numpy()
    return values


def _first(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _check_finite(loss: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(loss).all():
        sequence, layer, scope = np.argwhere(~np.isfinite(loss))[0]
        raise UserError(
            f"priors: the loss without the {SCOPES[scope]} of layer {layer} is not finite at sequence {sequence}; "
            "load the model in bfloat16 or float32 (evaluation.dtype), or check its weights"
        )
