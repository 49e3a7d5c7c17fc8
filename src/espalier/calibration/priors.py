"""Priors: the effect of removing one layer, attention block or MLP block from the model.

A block adds its output to the residual stream. To remove a block, this output is set to zero. To remove a layer, both
of its blocks are removed. Two priors of a layer or block are measured on calibration sequences:

    loss_increase   = mean token loss (nats) of the model without it - mean token loss of the unpruned model
    cosine_distance = mean over tokens of 1 - cos(hidden state before it, hidden state after it), in the unpruned model

The model runs in its own dtype. Losses and cosines are computed in float32.

One sweep over the layers measures all removals. Before layer i, a model without a block of layer i computes the same as
the unpruned model. The sweep therefore starts with the hidden states of the unpruned model alone. At each layer, it
adds the hidden states of three models: without the layer, without its attention block and without its MLP block. The
following layers are applied to all of these hidden states together, so weights are read once per sweep. The cost is
about half of running the whole model once for each removal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from espalier.calibration.gradients import losses_from_logits
from espalier.errors import UserError
from espalier.models.context import check_fits_context
from espalier.models.decoder import Block, decoder_layers, get_block
from espalier.progress import Progress
from espalier.scoring.head import decoder_bypassed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCOPES = ("layer", "attention", "mlp")
PER_LAYER = len(SCOPES)
_SLOTS = ("attention", "mlp", "layer")  # what is removed in the three slots of a layer
STATE_SHARE = 0.3  # fraction of the free GPU memory for hidden states
STATE_BYTES_ON_CPU = 2**29  # bytes for hidden states, if the model is on the CPU
TOKENS_ON_CPU = 1024  # tokens per call of a layer: more do not fit in the CPU caches and are slower
TAIL_TOKENS = 1024  # tokens per call of the output embedding: logits take much more memory than hidden states
logger = logging.getLogger(__name__)

PriorArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Priors:
    """Priors of each sequence. `columns` averages them over the first sequences.

    Attributes:
        loss_increase: Nats, float64, (n_sequences, n_layers, 3). The last axis is in the order of `SCOPES`.
        cosine_distance: From 0 to 2, float64, in the same shape.
    """

    loss_increase: PriorArray
    cosine_distance: PriorArray

    def columns(self, n_samples: int, n_sequences: int) -> dict[str, npt.NDArray[np.generic]]:
        """Return the columns of the priors table for one sample count.

        Args:
            n_samples: Sample count of the calibration setting, for the column of that name.
            n_sequences: Number of first sequences to average over (see `n_prior_sequences`): a fifth of `n_samples`, or
                `calibration.prior_samples` if it is set.
        """
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

    When the GPU is out of memory, the sweep is retried with half as many sequences, and with half as many tokens per
    call of a layer.

    Args:
        model: A causal language model. It is unchanged afterwards.
        sequences: Token ids, (n_sequences, seq_len).
        token_budget: Most tokens per call of a layer. A single sequence that is longer still runs.

    Raises:
        UserError: If sequences are longer than the model's context, a loss is not finite, or the GPU is out of memory
            with one sequence.
    """
    check_fits_context(model, sequences.shape[1], "grid.taylor_seq_len")
    n_layers, seq_len = len(decoder_layers(model)), sequences.shape[1]
    batch_size, start = _choose_batch_size(model, seq_len), 0
    parts: list[Priors] = []
    n_calls = sum(PER_LAYER * (number + 1) for number in range(n_layers))  # of layers, for one sequence
    with Progress("priors", total=len(sequences) * n_calls, unit="layer calls") as progress:
        while start < len(sequences):
            batch = sequences[start : start + batch_size].to(model.device)
            try:
                parts.append(_Sweep(model, batch, token_budget, progress).run())
            except torch.OutOfMemoryError:
                pass  # retry after this block, because until then the traceback keeps the tensors of the sweep alive
            else:
                start += len(batch)
                continue
            batch_size, token_budget = _halve(batch_size, token_budget, seq_len)
    measured = Priors(
        np.concatenate([part.loss_increase for part in parts]),
        np.concatenate([part.cosine_distance for part in parts]),
    )
    _check_losses_finite(measured.loss_increase)
    return measured


class _Sweep:
    """A sweep over the layers with a batch of sequences, (batch_size, seq_len).

    `_states` holds the hidden states of several models, (slots, batch_size, seq_len, hidden). Slot 0 is the unpruned
    model. Then each layer has three slots: the models without its attention block, without its MLP block and without
    the layer. In this order, the slots that a layer is applied to are the first ones, so they are read without a copy.
    """

    def __init__(self, model: PreTrainedModel, batch: torch.Tensor, token_budget: int, progress: Progress) -> None:
        self._model, self._batch, self._progress = model, batch, progress
        self._layers = decoder_layers(model)
        inputs = _layer_inputs(model, batch)
        self._arguments = inputs.arguments
        if batch.device.type == "cpu":
            token_budget = min(token_budget, TOKENS_ON_CPU)
        self._at_once = max(1, token_budget // batch.shape[1])  # sequences per call of a layer
        slots = 1 + PER_LAYER * len(self._layers)
        self._states = inputs.embedded.new_empty(slots, *inputs.embedded.shape)
        self._states[0] = inputs.embedded

    def run(self) -> Priors:
        """Run the sweep and return the priors of the batch."""
        cosines = [self._pass_layer(number) for number in range(len(self._layers))]
        losses = self._losses()
        increase = (losses[1:] - losses[:1]).double().cpu().numpy()  # (3 n_layers, batch_size)
        distances: PriorArray = torch.stack(cosines, dim=1).double().cpu().numpy()
        by_slot = increase.T.reshape(len(self._batch), len(self._layers), PER_LAYER)
        in_order = [_SLOTS.index(scope) for scope in SCOPES]
        return Priors(by_slot[:, :, in_order], distances)

    def _pass_layer(self, number: int) -> torch.Tensor:
        """Apply a layer, and return the cosine distances of its scopes, (batch_size, 3), on the device of the states.

        The three slots of this layer begin as copies of slot 0. The layer is then applied to slot 0, to the slots of
        earlier layers, and to two of its own slots: without its attention block and without its MLP block. It is not
        applied to the slot without the layer.
        """
        first = 1 + PER_LAYER * number
        without_attention, without_mlp, without_layer = (first + position for position in range(PER_LAYER))
        self._states[first : first + PER_LAYER] = self._states[0]
        batch_size = len(self._batch)
        hidden = self._states[:without_layer].flatten(0, 1)  # a view: (slots * batch_size, seq_len, hidden)
        slot = torch.arange(len(hidden)) // batch_size
        layer = self._layers[number]
        for start in range(0, len(hidden), self._at_once):
            chunk = slice(start, start + self._at_once)
            zero: dict[Block, torch.Tensor] = {
                "attention": slot[chunk] == without_attention,
                "mlp": slot[chunk] == without_mlp,
            }
            with _zeroing_outputs(layer, zero):
                hidden[chunk] = _hidden_states(layer(hidden[chunk], **self._arguments[number])).to(hidden.device)
            self._progress.advance(len(slot[chunk]))
        # The slot without the layer still has the input of the layer. The slot without the MLP block has the hidden
        # state between the two blocks.
        before, between, after = self._states[without_layer], self._states[without_mlp], self._states[0]
        return _cosine_distances(((before, after), (before, between), (between, after)))

    def _losses(self) -> torch.Tensor:
        """Return the loss of every slot and sequence, float32, (slots, batch_size)."""
        hidden = self._states.flatten(0, 1)
        at_once = max(1, min(self._at_once, TAIL_TOKENS // self._batch.shape[1]))
        sequence = torch.arange(len(hidden), device=hidden.device) % len(self._batch)  # index in the batch
        norm = self._model.get_decoder().norm
        with decoder_bypassed(self._model) as head:
            losses = [
                losses_from_logits(head(norm(chunk).flatten(0, 1)).unflatten(0, chunk.shape[:2]), self._batch[numbers])
                for chunk, numbers in zip(hidden.split(at_once), sequence.split(at_once), strict=True)
            ]
        return torch.cat(losses).to(hidden.device).view(len(self._states), len(self._batch))


class LayerInputs(NamedTuple):
    """Inputs of the layers in a forward pass.

    Attributes:
        arguments: Keyword arguments of each layer, such as its mask and positions.
        embedded: Input of the first layer, (batch_size, seq_len, hidden).
    """

    arguments: list[dict[str, Any]]
    embedded: torch.Tensor


def _layer_inputs(model: PreTrainedModel, batch: torch.Tensor) -> LayerInputs:
    """Record the keyword arguments of each layer for one sequence, and embed the whole batch.

    The sequences have no padding, so masks and positions are the same for all of them. The arguments recorded for one
    sequence work for any batch size.
    """
    arguments: list[dict[str, Any]] = []
    embedded: list[torch.Tensor] = []

    def record(_module: nn.Module, _args: object, kwargs: dict[str, Any]) -> None:
        arguments.append(kwargs)

    def stop(_module: nn.Module, args: tuple[torch.Tensor, ...], _kwargs: object) -> None:
        embedded.append(args[0])
        raise _StopAtFirstLayer

    layers = decoder_layers(model)
    handles = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        model.get_decoder()(input_ids=batch[:1], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    handle = layers[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.get_decoder()(input_ids=batch, use_cache=False)
    except _StopAtFirstLayer:
        pass
    finally:
        handle.remove()
    return LayerInputs(arguments, embedded[0])


class _StopAtFirstLayer(Exception):  # noqa: N818 (a signal, not an error)
    """Stops a forward pass at the first layer."""


@contextmanager
def _zeroing_outputs(layer: nn.Module, zero: dict[Block, torch.Tensor]) -> Iterator[None]:
    """Set the outputs of blocks to zero for some sequences, in calls of the layer inside the `with` statement.

    The output is exactly zero, even if the output projection has a bias.

    Args:
        layer: A decoder layer.
        zero: Mask of the sequences for each block, (sequences,). Where it is true, the output is zero.
    """

    def zero_output(
        chosen: torch.Tensor, _module: nn.Module, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> Any:
        first = _hidden_states(output)
        zeroed = torch.where(chosen.to(first.device)[:, None, None], torch.zeros((), dtype=first.dtype), first)
        return (zeroed, *output[1:]) if isinstance(output, tuple) else zeroed

    handles = [
        get_block(layer, block).register_forward_hook(partial(zero_output, chosen))
        for block, chosen in zero.items()
        if bool(chosen.any())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _choose_batch_size(model: PreTrainedModel, seq_len: int) -> int:
    """Choose the number of sequences of a sweep, so that their hidden states fit in memory."""
    slots = 2 + PER_LAYER * len(decoder_layers(model))  # those of `_Sweep`, and the embedded batch
    bytes_per_sequence = slots * seq_len * model.config.hidden_size * model.dtype.itemsize
    room = STATE_BYTES_ON_CPU
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        room = int(STATE_SHARE * torch.cuda.mem_get_info(model.device)[0])
    return max(1, room // bytes_per_sequence)


def _halve(batch_size: int, token_budget: int, seq_len: int) -> tuple[int, int]:
    """Return half of `batch_size` and half of `token_budget`, after the GPU was out of memory.

    Raises:
        UserError: If both were at their minimum.
    """
    if batch_size == 1 and token_budget <= seq_len:
        raise UserError(
            f"priors: GPU memory exhausted by one sequence of {seq_len} tokens; use a shorter taylor_seq_len, or give "
            "the model more GPUs (models[].gpus)"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    smaller = max(1, batch_size // 2), max(seq_len, token_budget // 2)
    logger.warning("out of GPU memory; once more with %d sequences and %d tokens at a time", *smaller)
    return smaller


def _cosine_distances(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return the mean over tokens of 1 - cosine similarity for each pair of hidden states, (batch_size, n_pairs)."""
    distances = [1 - nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).mean(dim=1) for a, b in pairs]
    return torch.stack(distances, dim=1)


def _hidden_states(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _check_losses_finite(loss_increase: PriorArray) -> None:
    """Check the losses without each part, minus the loss of the unpruned model: (n_sequences, n_layers, 3)."""
    finite = np.isfinite(loss_increase)
    if finite.all():
        return
    sequence, layer, scope = np.argwhere(~finite)[0]
    # All differences of a sequence are undefined if the loss of the unpruned model is.
    what = f"without the {SCOPES[scope]} of layer {layer}" if finite[sequence].any() else "of the unpruned model"
    raise UserError(
        f"priors: the loss {what} is not finite at sequence {sequence}; "
        "load the model in bfloat16 or float32 (evaluation.dtype), or check its weights"
    )
