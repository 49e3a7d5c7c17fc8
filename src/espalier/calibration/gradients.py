"""Accumulation of gradients and input norms in one pass over the calibration sequences.

Let loss_s be the mean next-token loss (nats) of calibration sequence s. For each projection of the selected layers, a
pass accumulates the sums that the caller selects:

    gradient          sum_s d loss_s / dw        for each element w of the weight and of the bias
    squared_gradient  sum_s (d loss_s / dw)^2    for each element w
    squared_input     sum_s sum_t x_jst^2        x_jst: input feature j of the projection at token t of sequence s

After k sequences, each sum is over the first k sequences. One pass over n sequences can therefore give results for
every sample count up to n.

Sums are float32 for every dtype of the model. During the backward pass, each projection adds its gradient directly to
its sums (`espalier.calibration.summed_linear`), and so does each expert (`espalier.calibration.experts`). No parameter
gets a gradient of its own, so the gradients of the whole model never exist at the same time. Logits and losses are
computed in pieces, so their memory does not grow with the number of tokens in a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from espalier.calibration.experts import recording_expert_inputs, summing_experts, summing_router
from espalier.calibration.summed_linear import LinearSums, summed_linear
from espalier.errors import UserError
from espalier.models.decoder import ALL_ROLES, ROUTER, Projection, decoder_layers, get_projection, projections
from espalier.models.experts import get_router
from espalier.models.replaced_forward import replaced_forward
from espalier.planning.criteria import Statistic, needs_backward
from espalier.progress import Progress
from espalier.scoring.head import decoder_bypassed, positions_at_once

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED_TARGET = -100
MAX_LOGITS = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Most logits in memory at once. A logit takes about 16 bytes, forward and backward."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sums:
    """Sums over sequences for one parameter of a projection. A sum that is not needed is None.

    Attributes:
        projection: Projection that the parameter belongs to.
        parameter: Weight (out_features, in_features) or bias (out_features,) of the projection.
        gradient: Sum of the gradients of single sequences, float32, in the shape of the parameter.
        squared_gradient: Sum of the squared gradients of single sequences, float32, in the shape of the parameter.
        squared_input: Sum of squared inputs over sequences and tokens, float32, (in_features,). The input of a bias is
            always 1, so its sum is the number of tokens, a scalar of shape ().
    """

    projection: Projection
    parameter: nn.Parameter
    gradient: torch.Tensor | None = None
    squared_gradient: torch.Tensor | None = None
    squared_input: torch.Tensor | None = None

    @classmethod
    def zero(cls, projection: Projection, parameter: nn.Parameter, needs: Collection[Statistic]) -> Sums:
        """Return sums of zero for `needs`, on the device of the parameter."""

        def zeros(shape: torch.Size) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=parameter.device)

        features = parameter.shape[1:]  # (in_features,), or () for a bias
        return cls(
            projection,
            parameter,
            zeros(parameter.shape) if "gradient" in needs else None,
            zeros(parameter.shape) if "squared_gradient" in needs else None,
            zeros(features) if "input_norm" in needs else None,
        )

    def first_non_finite(self) -> str | None:
        """Return the name of the first sum that is not finite, or None."""
        sums = (self.gradient, self.squared_gradient, self.squared_input)
        # Float32 elements cannot overflow a float64 sum, so the sum is finite exactly if all elements are.
        named = zip(("gradients", "squared gradients", "input norms"), sums, strict=True)
        bad = (name for name, each in named if each is not None and not torch.isfinite(each.sum(dtype=torch.float64)))
        return next(bad, None)

    def reset(self) -> None:
        """Set all sums to zero."""
        for each in (self.gradient, self.squared_gradient, self.squared_input):
            if each is not None:
                each.zero_()


def make_sums(
    model: PreTrainedModel, needs: Collection[Statistic] = (), *, layers: Collection[int] | None = None
) -> list[Sums]:
    """Return sums of zero for the weight and bias of every projection.

    Args:
        model: A causal language model.
        needs: Sums to accumulate.
        layers: Indices of the layers. None means all.
    """
    return [
        Sums.zero(projection, parameter, needs)
        for projection in projections(model)
        if layers is None or projection.layer in layers
        for parameter in (projection.weight, projection.bias)
        if parameter is not None
    ]


class NonFiniteError(Exception):
    """Raised by a function that reads sums, if a value is not finite."""


def accumulate(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    counts: Sequence[int],
    needs: Collection[Statistic],
    read: Callable[[int, Sequence[Sums]], Result],
    *,
    layers: Collection[int],
    batch_size: int,
    progress: Progress,
    checkpointing: bool = False,
) -> Iterator[Result]:
    """Accumulate sums over the sequences and yield what `read` returns at each sample count.

    Args:
        model: A causal language model. Its weights do not change.
        sequences: Token ids, (n_samples, seq_len).
        counts: Increasing sample counts at which to read the sums. The last is at most n_samples.
        needs: Statistics whose sums to accumulate. Squared gradients need one forward pass per sequence, so
            `batch_size` is then ignored.
        read: Function of a sample count and the sums over that many sequences. The sums are updated in place
            afterwards. It raises `NonFiniteError` if it finds a value that is not finite.
        layers: Indices of the layers for which to accumulate sums.
        batch_size: Most sequences per forward pass. A forward pass does not go beyond the next sample count.
        progress: Progress bar. It advances by the tokens processed.
        checkpointing: Whether the backward pass recomputes activations instead of keeping them in memory.

    Raises:
        UserError: If a sum is not finite. The message names the layer and the sequence.
        torch.OutOfMemoryError: If the device has too little memory for this number of layers and sequences.
    """
    sums = make_sums(model, needs, layers=layers)
    batch_size = min(batch_size, max_batch_size(needs, len(sequences)))
    scale = loss_scale(model.dtype, sequences.shape[1]) if needs_backward(needs) else 1.0
    done, most_done = 0, 0
    with _accumulating_gradients(model, sums, gradients=needs_backward(needs), checkpointing=checkpointing):
        for count in counts:
            while True:
                while done < count:
                    batch = sequences[done : min(done + batch_size, count)].to(model.device)
                    _add_batch(model, sums, batch, needs, scale)
                    done += len(batch)
                    progress.advance(max(0, done - most_done) * batch.shape[1])
                    most_done = max(done, most_done)
                try:
                    result = _read_unscaled(count, sums, scale, read)
                except NonFiniteError as error:
                    if scale == 1:
                        raise _name_non_finite(model, sums, sequences, done, needs, str(error)) from None
                else:
                    yield result
                    break
                scale = max(1.0, scale / 256)  # the scaled gradients were too large for float16
                done = 0
                for each in sums:
                    each.reset()


def loss_scale(dtype: torch.dtype, seq_len: int) -> float:
    """Return the power of two that the loss is multiplied by before the backward pass: 1 unless the model is float16.

    Gradients of the mean loss over the tokens of a sequence are so small that float16, whose smallest number is 6e-8,
    rounds many of them to a few bits or to zero. See Micikevicius et al., Mixed Precision Training.

    Args:
        dtype: Dtype of the model.
        seq_len: Tokens of a sequence.
    """
    return 16.0 * 2.0 ** math.ceil(math.log2(max(2, seq_len) - 1)) if dtype == torch.float16 else 1.0


def _read_unscaled(
    count: int, sums: Sequence[Sums], scale: float, read: Callable[[int, Sequence[Sums]], Result]
) -> Result:
    """Return what `read` returns for sums divided by the scale of the loss. Afterwards the sums are as before."""
    if scale == 1:
        return read(count, sums)
    scaled = [(each.gradient, scale) for each in sums] + [(each.squared_gradient, scale * scale) for each in sums]
    for total, factor in scaled:
        if total is not None:
            total.div_(factor)
    try:
        return read(count, sums)
    finally:
        for total, factor in scaled:
            if total is not None:
                total.mul_(factor)


def max_batch_size(needs: Collection[Statistic], n_sequences: int) -> int:
    """Return the largest number of sequences of a forward pass: 1 with squared gradients, otherwise `n_sequences`.

    Squared gradients need the gradient of each single sequence, and a backward pass gives the sum over its batch.
    """
    return 1 if "squared_gradient" in needs else n_sequences


def run_forward_backward(model: PreTrainedModel, sequence: torch.Tensor, *, checkpointing: bool) -> None:
    """Run one sequence forward and backward with gradients of all projections, and discard the gradients.

    Used to measure peak memory.

    Args:
        model: A causal language model.
        sequence: Token ids, (1, seq_len).
        checkpointing: Whether the backward pass recomputes activations.
    """
    with _accumulating_gradients(model, make_sums(model), gradients=True, checkpointing=checkpointing):
        backward(model, sequence.to(model.device))


def sequence_losses(model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss of each sequence in nats, float32, (batch_size,)."""
    return losses_from_logits(model(input_ids=batch, use_cache=False).logits, batch)


def losses_from_logits(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Compute the mean next-token loss of each sequence from logits, in nats.

    The last position has no target. It is masked because slicing it off would copy all logits.

    Args:
        logits: (batch_size, seq_len, vocabulary).
        batch: Token ids, (batch_size, seq_len).

    Returns:
        Losses, float32, (batch_size,).
    """
    targets = nn.functional.pad(batch[:, 1:], (0, 1), value=IGNORED_TARGET).to(logits.device)
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none"
    )
    return losses.view(batch.shape).sum(dim=1) / (batch.shape[1] - 1)


def backward(model: PreTrainedModel, batch: torch.Tensor, scale: float = 1.0) -> None:
    """Run the backward pass of the sum of the sequences' mean next-token losses, multiplied by `scale`.

    The head and the loss go forward and backward for a piece of the tokens at a time. Logits take 4 bytes and more for
    each token and word of the vocabulary, so those of a whole batch would need more memory than the layers.

    Args:
        model: A causal language model.
        batch: Token ids, (batch_size, seq_len).
        scale: A power of two (`loss_scale`).
    """
    hidden = model.get_decoder()(input_ids=batch, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    targets = batch[:, 1:].flatten().to(hidden.device)
    gradient = torch.empty_like(hidden)
    step = positions_at_once(MAX_LOGITS["cpu" if hidden.device.type == "cpu" else "cuda"], model)
    with decoder_bypassed(model) as head:
        for start in range(0, len(hidden), step):
            piece = slice(start, start + step)
            states = hidden[piece].detach().requires_grad_()
            logits = head(states)
            loss = nn.functional.cross_entropy(logits.float(), targets[piece].to(logits.device), reduction="sum")
            (gradient[piece],) = torch.autograd.grad(loss / ((batch.shape[1] - 1) / scale), states)
    hidden.backward(gradient)


def _add_batch(
    model: PreTrainedModel, sums: Sequence[Sums], batch: torch.Tensor, needs: Collection[Statistic], scale: float = 1.0
) -> None:
    if "input_norm" in needs:
        with torch.no_grad(), _recording_inputs(model, sums):
            model.get_decoder()(input_ids=batch, use_cache=False)
    if needs_backward(needs):
        backward(model, batch, scale)


@contextmanager
def _accumulating_gradients(
    model: PreTrainedModel, sums: Sequence[Sums], *, gradients: bool, checkpointing: bool
) -> Iterator[None]:
    """Add gradients to `sums` in backward passes inside the block. No parameter gets a gradient of its own.

    At the end, `forward` of every module and `requires_grad` of every parameter are restored. Without `gradients`, no
    backward pass is possible.
    """
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with ExitStack() as stack:
        for parameter in before:
            parameter.requires_grad_(False)
        if gradients:
            for linear, weight, bias in _by_projection(model, sums):
                linear.weight.requires_grad_(True)  # so that the backward pass reaches this projection
                stack.enter_context(summed_linear(linear, _linear_sums(weight, bias)))
            for layer, of_experts, of_router in _by_experts(model, sums):
                linear_sums = {key: _linear_sums(each, None) for key, each in of_experts.items()}
                stack.enter_context(summing_experts(layer, linear_sums))
                stack.enter_context(summing_router(layer, _linear_sums(of_router, None)))
        if checkpointing:
            stack.enter_context(gradient_checkpointing(decoder_layers(model)))
        try:
            yield
        finally:
            for parameter, required in before.items():
                parameter.requires_grad_(required)


def _by_projection(model: PreTrainedModel, sums: Sequence[Sums]) -> Iterator[tuple[nn.Linear, Sums, Sums | None]]:
    """Yield each projection that has sums, with the sums of its weight and of its bias (None without a bias)."""
    layers, roles = decoder_layers(model), {role.name: role for role in ALL_ROLES}
    found: dict[tuple[int, str], list[Sums]] = {}
    for each in sums:
        if each.projection.expert is None:
            found.setdefault((each.projection.layer, each.projection.name), []).append(each)
    for (layer, name), (weight, *bias) in found.items():  # in the order of `make_sums`
        yield get_projection(layers[layer], roles[name]), weight, bias[0] if bias else None


def _by_experts(
    model: PreTrainedModel, sums: Sequence[Sums]
) -> Iterator[tuple[nn.Module, dict[tuple[int, str], Sums], Sums]]:
    """Yield each layer whose experts have sums, with these sums by expert and projection, and those of its router."""
    layers = decoder_layers(model)
    found: dict[int, dict[tuple[int, str], Sums]] = {}
    for each in sums:
        if each.projection.expert is not None:
            found.setdefault(each.projection.layer, {})[each.projection.expert, each.projection.name] = each
    for layer, by_projection in found.items():
        router = next(key for key in by_projection if key[0] == ROUTER)
        of_router = by_projection.pop(router)
        yield layers[layer], by_projection, of_router


def _linear_sums(weight: Sums, bias: Sums | None) -> LinearSums:
    of_bias = (None, None) if bias is None else (bias.gradient, bias.squared_gradient)
    return LinearSums(weight.gradient, weight.squared_gradient, *of_bias)


@contextmanager
def gradient_checkpointing(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Make layers keep only their inputs and recompute activations in the backward pass, inside the block.

    This replaces the gradient checkpointing of transformers, which works only in training mode. Training mode would
    also enable dropout.
    """
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced_forward(layer, partial(checkpoint, layer.forward, use_reentrant=False)))
        yield


@contextmanager
def _recording_inputs(model: PreTrainedModel, sums: Sequence[Sums]) -> Iterator[None]:
    """Add the squared inputs of each projection to `sums` in forward passes inside the block."""

    def record(totals: list[torch.Tensor], _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        features = args[0].detach().float().flatten(0, -2)  # (tokens, in_features)
        for total in totals:  # (in_features,) for a weight, () for a bias
            total.add_(features.square().sum(dim=0) if total.dim() else len(features))

    with ExitStack() as stack:
        for linear, *of_parameters in _by_projection(model, sums):
            totals = [each.squared_input for each in of_parameters if each and each.squared_input is not None]
            if totals:
                stack.callback(linear.register_forward_pre_hook(partial(record, totals)).remove)
        for layer, of_experts, of_router in _by_experts(model, sums):
            inputs = {key: each.squared_input for key, each in of_experts.items() if each.squared_input is not None}
            if inputs and of_router.squared_input is not None:
                stack.enter_context(recording_expert_inputs(layer, inputs))
                router = get_router(layer)
                stack.callback(router.register_forward_pre_hook(partial(record, [of_router.squared_input])).remove)
        yield


def _name_non_finite(
    model: PreTrainedModel,
    sums: Sequence[Sums],
    sequences: torch.Tensor,
    done: int,
    needs: Collection[Statistic],
    problem: str,
) -> UserError:
    """Return the error for a value that is not finite.

    Run the first `done` sequences again one at a time, to find the first sequence and layer with such a value.
    """
    broken = next(((each, what) for each in sums if (what := each.first_non_finite())), None)
    if broken is None:
        return UserError(f"{problem}; load the model in float32 (evaluation.dtype), or check its weights")
    for number in range(done):
        for each in sums:
            each.reset()
        _add_batch(model, sums, sequences[number : number + 1].to(model.device), needs)
        for each in sums:
            if what := each.first_non_finite():
                return UserError(
                    f"{what}: not finite in layer {each.projection.layer}, {each.projection.name}, at sequence "
                    f"{number}; load the model in bfloat16 or float32 (evaluation.dtype), or check its weights"
                )
    return UserError(
        f"{broken[1]}: the sum over {done} sequences is not finite in layer {broken[0].projection.layer}, though each "
        "sequence's is; load the model in float32 (evaluation.dtype)"
    )
