"""Priors: the effect of removing one layer, attention block or MLP block from the model.

A block is removed by setting the output that it adds to the residual stream to zero. Removing a layer removes both of
its blocks. Two priors are measured on calibration sequences:

    loss_increase   = mean token loss (nats) of the model without the block - mean token loss of the unpruned model
    cosine_distance = mean over tokens of 1 - cos(hidden state before the block, hidden state after the block),
                      in the unpruned model

Both are computed in float32.

One sweep over the layers measures all removals. The sweep carries the hidden states of the unpruned model, and those of
every model whose removed block is in a layer that the sweep has reached. Each layer is applied to all of them at once.
The layers before a removed block are therefore computed once for all removals, and weights are read once per sweep. The
cost is about half of running the whole model once for each removal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from espalier.calibration.gradients import check_length, losses_of
from espalier.errors import UserError
from espalier.models.decoder import Block, decoder_layers, get_block
from espalier.progress import Progress
from espalier.scoring.head import decoder_left_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCOPES = ("layer", "attention", "mlp")
PER_LAYER = len(SCOPES)
STATE_SHARE = 0.3  # fraction of the free GPU memory for hidden states
STATE_BYTES_ON_CPU = 2**29
TOKENS_ON_CPU = 1024  # tokens per call of a layer: more do not fit in the CPU caches and are slower
TAIL_TOKENS = 1024  # tokens per call of the output embedding: logits take much more memory than hidden states
logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Priors:
    """Priors of each sequence. They can be averaged over any number of first sequences.

    Attributes:
        loss_increase: float64, (n_sequences, n_layers, 3). The last axis is in the order of `SCOPES`.
        cosine_distance: float64, in the same shape.
    """

    loss_increase: Floats
    cosine_distance: Floats

    def rows(self, n_samples: int, n_sequences: int) -> dict[str, npt.NDArray[np.generic]]:
        """Return the columns of the priors table for the setting `n_samples`: means over the first `n_sequences`."""
        n_layers = self.loss_increase.shape[1]
        return {
            "n_samples": np.full(PER_LAYER * n_layers, n_samples),
            "layer": np.repeat(np.arange(n_layers), PER_LAYER),
            "scope": np.tile(np.array(SCOPES, dtype=object), n_layers),
            "loss_increase": self.loss_increase[:n_sequences].mean(axis=0).ravel(),
            "cosine_distance": self.cosine_distance[:n_sequences].mean(axis=0).ravel(),
        }


@torch.inference_mode()
def measure_priors(model: PreTrainedModel, sequences: torch.Tensor, *, token_budget: int) -> Priors:
    """Measure both priors of every layer, attention block and MLP block.

    When the GPU is out of memory, retry with half of the sequences and tokens at once.

    Args:
        model: A causal language model. It is unchanged afterwards.
        sequences: Token ids, (n_sequences, seq_len).
        token_budget: Most tokens per call of a layer. A single sequence that is longer still runs.

    Raises:
        UserError: If sequences are longer than the model's context, a loss is not finite, or the GPU is out of memory
            with one sequence.
    """
    check_length(model, sequences.shape[1])
    n_layers, seq_len = len(decoder_layers(model)), sequences.shape[1]
    rows, loss, cosine, start = _rows_at_once(model, seq_len), [], [], 0
    n_calls = sum(PER_LAYER * (number + 1) for number in range(n_layers))
    with Progress("priors", total=len(sequences) * n_calls, unit="layer calls") as progress:
        while start < len(sequences):
            batch = sequences[start : start + rows].to(model.device)
            try:
                swept = _Sweep(model, batch, token_budget, progress).run()
            except torch.OutOfMemoryError:
                swept = None  # the traceback keeps the tensors of the failed sweep alive until this block ends
            if swept is None:
                rows, token_budget = _smaller(rows, token_budget, seq_len)
                continue
            loss.append(swept[0])
            cosine.append(swept[1])
            start += len(batch)
    measured = Priors(np.concatenate(loss), np.concatenate(cosine))
    _check_finite(measured.loss_increase)
    return measured


class _Sweep:
    """A sweep over the layers with a batch of sequences, (rows, seq_len).

    `_states` holds the hidden states of the unpruned model and of the models without a block, (slots, rows, seq_len,
    hidden). Slot 0 is the unpruned model. Then each layer has three slots, in the order of `SCOPES`.
    """

    def __init__(self, model: PreTrainedModel, batch: torch.Tensor, token_budget: int, progress: Progress) -> None:
        self._model, self._batch, self._progress = model, batch, progress
        self._layers = decoder_layers(model)
        self._calls, embedded = _layer_arguments(model, batch)
        if batch.device.type == "cpu":
            token_budget = min(token_budget, TOKENS_ON_CPU)
        self._at_once = max(1, token_budget // batch.shape[1])
        slots = 1 + PER_LAYER * len(self._layers)
        self._states = embedded.new_empty(slots, *embedded.shape)
        self._states[0] = embedded

    def run(self) -> tuple[Floats, Floats]:
        """Run the sweep and return loss increases and cosine distances, each (rows, n_layers, 3)."""
        cosines = [self._pass_layer(number) for number in range(len(self._layers))]
        losses = self._losses()
        increase = (losses[1:] - losses[:1]).double().cpu().numpy()  # (3 n_layers, rows)
        n_rows = len(self._batch)
        return increase.T.reshape(n_rows, len(self._layers), PER_LAYER), np.stack(cosines, axis=1)

    def _pass_layer(self, number: int) -> Floats:
        """Apply a layer to the states of all slots so far, and return the cosine distances of its scopes, (rows, 3).

        The three slots of this layer begin as copies of slot 0. The layer is not applied to the slot without the layer.
        In the other two slots, it is applied without its attention block and without its MLP block.
        """
        first = 1 + PER_LAYER * number
        without_layer, without_attention, without_mlp = (first + position for position in range(PER_LAYER))
        self._states[first : first + PER_LAYER] = self._states[0]
        applied = [*range(first), without_attention, without_mlp]
        rows = len(self._batch)
        hidden = self._states.flatten(0, 1)  # a view: (slots * rows, seq_len, hidden)
        wanted = torch.cat([torch.arange(slot * rows, (slot + 1) * rows) for slot in applied])
        layer = self._layers[number]
        for chunk in wanted.split(self._at_once):
            zero: dict[Block, torch.Tensor] = {
                "attention": chunk // rows == without_attention,
                "mlp": chunk // rows == without_mlp,
            }
            with _contributing_zero(layer, zero):
                at = chunk.to(hidden.device)
                hidden[at] = _first(layer(hidden[at], **self._calls[number])).to(hidden.device)
            self._progress.advance(len(chunk))
        before, between, after = self._states[without_layer], self._states[without_mlp], self._states[0]
        return _cosine_distances(((before, after), (before, between), (between, after)))

    def _losses(self) -> torch.Tensor:
        """Return the loss of every slot and sequence, float32, (slots, rows)."""
        hidden = self._states.flatten(0, 1)
        at_once = max(1, min(self._at_once, TAIL_TOKENS // self._batch.shape[1]))
        sequence = torch.arange(len(hidden), device=hidden.device) % len(self._batch)
        norm = self._model.get_decoder().norm
        with decoder_left_out(self._model) as head:
            losses = [
                losses_of(head(norm(chunk).flatten(0, 1)).unflatten(0, chunk.shape[:2]), self._batch[numbers])
                for chunk, numbers in zip(hidden.split(at_once), sequence.split(at_once), strict=True)
            ]
        return torch.cat(losses).to(hidden.device).view(len(self._states), len(self._batch))


def _layer_arguments(model: PreTrainedModel, batch: torch.Tensor) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Record the keyword arguments of each layer for one sequence, and embed the whole batch.

    The sequences have no padding, so masks and positions are the same for all of them. The arguments recorded for one
    sequence work for any number of rows.

    Returns:
        The keyword arguments of each layer, and the input of the first layer, (rows, seq_len, hidden).
    """
    calls: list[dict[str, Any]] = []
    entered: list[torch.Tensor] = []

    def keep(_module: nn.Module, _args: object, kwargs: dict[str, Any]) -> None:
        calls.append(kwargs)

    def enter(_module: nn.Module, args: tuple[torch.Tensor, ...], _kwargs: object) -> None:
        entered.append(args[0])
        raise _Entered

    layers = decoder_layers(model)
    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        model.get_decoder()(input_ids=batch[:1], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    handle = layers[0].register_forward_pre_hook(enter, with_kwargs=True)
    try:
        model.get_decoder()(input_ids=batch, use_cache=False)
    except _Entered:
        pass
    finally:
        handle.remove()
    return calls, entered[0]


class _Entered(Exception):  # noqa: N818 (a signal, not an error)
    """Stops a forward pass at the first layer."""


@contextmanager
def _contributing_zero(layer: nn.Module, zero: dict[Block, torch.Tensor]) -> Iterator[None]:
    """Set the output of each block, with its output bias, to zero in the rows where `zero[block]` is true."""

    def silence(rows: torch.Tensor, output: torch.Tensor | tuple[torch.Tensor, ...]) -> Any:
        first = _first(output)
        silenced = torch.where(rows.to(first.device)[:, None, None], torch.zeros((), dtype=first.dtype), first)
        return (silenced, *output[1:]) if isinstance(output, tuple) else silenced

    handles = [
        get_block(layer, block).register_forward_hook(lambda _module, _args, output, rows=rows: silence(rows, output))
        for block, rows in zero.items()
        if bool(rows.any())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows_at_once(model: PreTrainedModel, seq_len: int) -> int:
    """Choose the number of sequences of a sweep, so that their hidden states fit in memory."""
    slots = 2 + PER_LAYER * len(decoder_layers(model))
    per_row = slots * seq_len * model.config.hidden_size * model.dtype.itemsize
    room = STATE_BYTES_ON_CPU
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        room = int(STATE_SHARE * torch.cuda.mem_get_info(model.device)[0])
    return max(1, room // per_row)


def _smaller(rows: int, token_budget: int, seq_len: int) -> tuple[int, int]:
    """Return half of `rows` and half of `token_budget`, after the GPU was out of memory.

    Raises:
        UserError: If both were at their minimum.
    """
    if rows == 1 and token_budget <= seq_len:
        raise UserError(
            f"priors: GPU memory exhausted by one sequence of {seq_len} tokens; use a shorter taylor_seq_len, or give "
            "the model more GPUs (models[].gpus)"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    smaller = max(1, rows // 2), max(seq_len, token_budget // 2)
    logger.warning("out of GPU memory; once more with %d sequences and %d tokens at a time", *smaller)
    return smaller


def _cosine_distances(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Floats:
    """Return the mean over tokens of 1 - cosine similarity for each pair of hidden states, (n_rows, n_pairs)."""
    distances = [1 - nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).mean(dim=1) for a, b in pairs]
    values: Floats = torch.stack(distances, dim=1).double().cpu().numpy()
    return values


def _first(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _check_finite(loss: Floats) -> None:
    if not np.isfinite(loss).all():
        sequence, layer, scope = np.argwhere(~np.isfinite(loss))[0]
        raise UserError(
            f"priors: the loss without the {SCOPES[scope]} of layer {layer} is not finite at sequence {sequence}; "
            "load the model in bfloat16 or float32 (evaluation.dtype), or check its weights"
        )
