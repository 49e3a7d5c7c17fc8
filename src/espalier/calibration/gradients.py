"""Gather what criteria need in one pass over the calibration sequences, with snapshots on the way.

For calibration sequences s = 1 .. n, loss_s is the mean next-token loss (nats) of sequence s. After k sequences a pass
knows, for every parameter of the layers it looks at, the sums over s <= k of d loss_s / dw, of its square, or of the
squared input features, whichever is asked for. So one pass over n sequences serves every count up to n.

Sums are float32 whatever the model's dtype. Each parameter's gradient is added and freed as soon as the backward pass
has made it, so no second copy of the model's size is ever held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.models.context import context_length
from espalier.models.decoder import Projection, decoder_layers, linear_of, projections
from espalier.planning.criteria import Need, ParameterStats, takes_gradients
from espalier.progress import Progress

NO_TARGET = -100


@dataclass(frozen=True)
class Sums:
    """What has been summed over sequences for one parameter of a projection; None for what was not asked for.

    Attributes:
        projection: Which projection of which layer.
        parameter: Its weight (out_features, in_features) or its bias (out_features,).
        gradient: Sum of single-sequence gradients, float32, shaped like the parameter.
        squared_gradient: Sum of their squares, likewise.
        squared_input: Sum of squared inputs over sequences and tokens, float32: (in_features,). For a bias, whose input
            is always 1, the number of tokens: ().
    """

    projection: Projection
    parameter: nn.Parameter
    gradient: torch.Tensor | None = None
    squared_gradient: torch.Tensor | None = None
    squared_input: torch.Tensor | None = None

    @classmethod
    def zero(cls, projection: Projection, parameter: nn.Parameter, needs: Collection[Need]) -> Sums:
        """Begin with nothing, on the device of the parameter."""

        def zeros(shape: torch.Size) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=parameter.device)

        features = parameter.shape[1:]  # none for a bias
        return cls(
            projection,
            parameter,
            zeros(parameter.shape) if "gradient" in needs else None,
            zeros(parameter.shape) if "squared_gradient" in needs else None,
            zeros(features) if "input_norm" in needs else None,
        )

    def evidence(self, n_samples: int) -> ParameterStats:
        """Turn sums over `n_samples` sequences into what criteria read."""

        def mean(total: torch.Tensor | None) -> torch.Tensor | None:
            return None if total is None else total / n_samples

        squared_input = mean(self.squared_input)
        return ParameterStats(
            self.parameter.detach().float(),
            mean(self.gradient),
            mean(self.squared_gradient),
            None if squared_input is None else squared_input.sqrt(),
        )

    def not_finite(self) -> str | None:
        """Name the first sum that is not finite; None if all are."""
        sums = (self.gradient, self.squared_gradient, self.squared_input)
        named = zip(("gradients", "squared gradients", "input norms"), sums, strict=True)
        bad = (name for name, each in named if each is not None and not torch.isfinite(each.sum(dtype=torch.float64)))
        return next(bad, None)

    def reset(self) -> None:
        """Forget everything."""
        for each in (self.gradient, self.squared_gradient, self.squared_input):
            if each is not None:
                each.zero_()


def accumulate(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    counts: Sequence[int],
    needs: Collection[Need],
    *,
    layers: Collection[int],
    rows: int,
    progress: Progress,
    checkpointing: bool = False,
) -> Iterator[tuple[int, list[Sums]]]:
    """Run over the sequences and stop at each count.

    Args:
        model: A causal language model; its weights are not changed.
        sequences: Token ids, (n_samples, seq_len).
        counts: Increasing numbers of sequences to stop at; the last is at most n_samples.
        needs: What to sum. Squared gradients take sequences one at a time, whatever `rows` says.
        layers: Numbers of the layers to look at.
        rows: Sequences in a forward pass.
        progress: Advanced by the tokens done.
        checkpointing: Whether layers compute their activations again in the backward pass instead of keeping them.

    Yields:
        The count and the sums so far. The yielded sums are updated in place; read them before advancing the generator.

    Raises:
        UserError: If something is not finite (naming layer and sequence).
        torch.OutOfMemoryError: If the device has too little memory for so many layers and rows.
    """
    sums = [
        Sums.zero(projection, parameter, needs)
        for projection in projections(model)
        if projection.layer in layers
        for parameter in (projection.weight, projection.bias)
        if parameter is not None
    ]
    rows = min(rows, most_rows(needs, len(sequences)))
    done = 0
    with _folding(model, sums, gradients=takes_gradients(needs), checkpointing=checkpointing):
        for count in counts:
            while done < count:
                batch = sequences[done : min(done + rows, count)].to(model.device)
                _add_batch(model, sums, batch, needs)
                done += len(batch)
                progress.advance(batch.numel())
            _check_finite(model, sums, sequences, done, needs)
            yield count, sums


def most_rows(needs: Collection[Need], n_sequences: int) -> int:
    """Return how many of these sequences one forward pass may take: squared gradients are those of single sequences."""
    return 1 if "squared_gradient" in needs else n_sequences


def run_once(model: PreTrainedModel, sequence: torch.Tensor, *, checkpointing: bool) -> None:
    """Run one sequence forward and backward with the gradients of all projections, and keep nothing.

    Args:
        model: A causal language model.
        sequence: Token ids, (1, seq_len).
        checkpointing: As in `accumulate`.
    """
    nothing = [
        Sums(projection, parameter)
        for projection in projections(model)
        for parameter in (projection.weight, projection.bias)
        if parameter is not None
    ]
    with _folding(model, nothing, gradients=True, checkpointing=checkpointing):
        sequence_losses(model, sequence.to(model.device)).sum().backward()


def check_length(model: PreTrainedModel, seq_len: int) -> None:
    """Refuse sequences longer than the model's context.

    Raises:
        UserError: With both numbers.
    """
    limit = context_length(model)
    if seq_len > limit:
        raise UserError(
            f"grid.taylor_seq_len: got {seq_len}, but the model's context is {limit} tokens; give at most {limit}"
        )


def sequence_losses(model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss of each sequence in nats, float32: (n_rows,)."""
    return losses_of(model(input_ids=batch, use_cache=False).logits, batch)


def losses_of(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Return mean next-token losses (n_rows,) from logits (n_rows, seq_len, vocabulary), in float32.

    The last position predicts nothing: it is masked rather than cut off, which would copy all logits.
    """
    targets = nn.functional.pad(batch[:, 1:], (0, 1), value=NO_TARGET).to(logits.device)
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=NO_TARGET, reduction="none"
    )
    return losses.view(batch.shape).sum(dim=1) / (batch.shape[1] - 1)


def _add_batch(model: PreTrainedModel, sums: Sequence[Sums], batch: torch.Tensor, needs: Collection[Need]) -> None:
    if "input_norm" in needs:
        with torch.no_grad(), _recording_inputs(model, sums):
            model.get_decoder()(input_ids=batch, use_cache=False)
    if takes_gradients(needs):
        sequence_losses(model, batch).sum().backward()


@contextmanager
def _folding(model: PreTrainedModel, sums: Sequence[Sums], *, gradients: bool, checkpointing: bool) -> Iterator[None]:
    """Ask for gradients of these parameters only, add each to its sums and free it; undo all at the end."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}

    def fold(each: Sums, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            if each.gradient is not None:
                each.gradient.add_(parameter.grad)
            if each.squared_gradient is not None:
                grad = parameter.grad.float()
                each.squared_gradient.addcmul_(grad, grad)
            parameter.grad = None

    with ExitStack() as stack:
        for parameter in before:
            parameter.requires_grad_(False)
        for each in sums if gradients else ():
            each.parameter.requires_grad_(True)
            stack.callback(each.parameter.register_post_accumulate_grad_hook(partial(fold, each)).remove)
        if checkpointing:
            stack.enter_context(checkpointed(decoder_layers(model)))
        try:
            yield
        finally:
            for parameter, required in before.items():
                parameter.requires_grad_(required)
                parameter.grad = None


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Make layers keep only their inputs. transformers' own switch works in training mode only, with its dropout."""
    changed = []
    try:
        for layer in layers:
            own = layer.__dict__.get("forward")
            changed.append((layer, own))
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for layer, own in changed:
            del layer.forward
            if own is not None:  # someone else's wrapper, such as accelerate's
                layer.forward = own


@contextmanager
def _recording_inputs(model: PreTrainedModel, sums: Sequence[Sums]) -> Iterator[None]:
    """Add the squares of what each projection reads."""

    def record(totals: list[torch.Tensor], _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        features = args[0].detach().float().flatten(0, -2)  # (tokens, in_features)
        for total in totals:
            total.add_(features.square().sum(dim=0) if total.dim() else len(features))

    by_projection: dict[tuple[int, str], list[torch.Tensor]] = {}
    for each in sums:
        if each.squared_input is not None:
            key = (each.projection.layer, each.projection.name)
            by_projection.setdefault(key, []).append(each.squared_input)
    with ExitStack() as stack:
        for (layer, name), totals in by_projection.items():
            hook = linear_of(model, layer, name).register_forward_pre_hook(partial(record, totals))
            stack.callback(hook.remove)
        yield


def _check_finite(
    model: PreTrainedModel, sums: Sequence[Sums], sequences: torch.Tensor, done: int, needs: Collection[Need]
) -> None:
    """Name the first layer and sequence whose sums are not finite.

    One sum per parameter tells whether all is well; only when it is not are sequences run again one by one.
    """
    broken = next(((each, what) for each in sums if (what := each.not_finite())), None)
    if broken is None:
        return
    for number in range(done):
        for each in sums:
            each.reset()
        _add_batch(model, sums, sequences[number : number + 1].to(model.device), needs)
        for each in sums:
            if what := each.not_finite():
                raise UserError(
                    f"{what}: not finite in layer {each.projection.layer}, {each.projection.name}, at sequence "
                    f"{number}; load the model in bfloat16 or float32 (evaluation.dtype), or check its weights"
                )
    raise UserError(
        f"{broken[1]}: the sum over {done} sequences is not finite in layer {broken[0].projection.layer}, though each "
        "sequence's is; load the model in float32 (evaluation.dtype)"
    )
