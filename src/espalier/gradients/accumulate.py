"""Accumulate the gradient of the calibration loss, with snapshots on the way.

For calibration sequences s = 1 .. n, loss_s is the mean next-token loss (nats) of sequence s, and after k sequences

    g_k = (1 / k) * sum over s <= k of d loss_s / d w

A pass over n sequences yields g_k for every k asked for. Sums are kept in float32 whatever the model's dtype; each
parameter's gradient is added and freed as soon as the backward pass has made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.models.decoder import Projection, projections
from espalier.models.loading import context_length
from espalier.progress import Progress


@dataclass(frozen=True)
class Gradient:
    """The accumulated gradient of one parameter of a projection, still a sum over samples.

    Attributes:
        projection: Which projection of which layer.
        parameter: Its weight (out_features, in_features) or its bias (out_features,).
        total: Sum of single-sequence gradients, float32, shaped like the parameter.
    """

    projection: Projection
    parameter: torch.nn.Parameter
    total: torch.Tensor


def accumulate(
    model: PreTrainedModel, sequences: torch.Tensor, counts: Sequence[int], *, token_budget: int
) -> Iterator[tuple[int, list[Gradient]]]:
    """Run over the sequences and stop at each count.

    Args:
        model: A causal language model; its weights are not changed.
        sequences: Token ids, (n_samples, seq_len).
        counts: Increasing numbers of sequences to stop at; the last is at most n_samples.
        token_budget: Upper bound on tokens in a forward pass.

    Yields:
        The count and the sums so far. Sums go on growing: use them before taking the next item.

    Raises:
        UserError: If sequences are longer than the model's context, or a gradient is not finite (naming layer and
            sequence).
    """
    check_length(model, sequences.shape[1])
    gradients = [
        Gradient(projection, parameter, torch.zeros_like(parameter, dtype=torch.float32))
        for projection in projections(model)
        for parameter in (projection.weight, projection.bias)
        if parameter is not None
    ]
    rows = max(1, token_budget // sequences.shape[1])
    done = 0
    with _only_these_trained(model, gradients), Progress("gradients", total=counts[-1], unit="sequences") as progress:
        for count in counts:
            while done < count:
                batch = sequences[done : min(done + rows, count)].to(model.device)
                summed_loss(model, batch).sum().backward()
                done += len(batch)
                progress.advance(len(batch))
            _check_finite(model, gradients, sequences, done)
            yield count, gradients


def check_length(model: PreTrainedModel, seq_len: int) -> None:
    """Refuse sequences longer than the model's context.

    Raises:
        UserError: With both numbers.
    """
    limit = context_length(model)
    if seq_len > limit:
        raise UserError(f"grid.taylor_seq_len: got {seq_len}, but the model's context is {limit} tokens")


def summed_loss(model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss of each sequence in nats, float32: (n_rows,)."""
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none")
    return losses.mean(dim=1)


@contextmanager
def _only_these_trained(model: PreTrainedModel, gradients: Sequence[Gradient]) -> Iterator[None]:
    """Ask for gradients of these parameters only, add each to its sum and free it; undo all at the end."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}

    def fold(gradient: Gradient, parameter: torch.nn.Parameter) -> None:
        if parameter.grad is not None:
            gradient.total.add_(parameter.grad)
            parameter.grad = None

    with ExitStack() as stack:
        for parameter in before:
            parameter.requires_grad_(False)
        for gradient in gradients:
            gradient.parameter.requires_grad_(True)
            handle = gradient.parameter.register_post_accumulate_grad_hook(
                lambda parameter, gradient=gradient: fold(gradient, parameter)
            )
            stack.callback(handle.remove)
        try:
            yield
        finally:
            for parameter, required in before.items():
                parameter.requires_grad_(required)
                parameter.grad = None


def _check_finite(model: PreTrainedModel, gradients: Sequence[Gradient], sequences: torch.Tensor, done: int) -> None:
    """Name the first layer and sequence whose gradient is not finite.

    One sum per parameter tells whether all is well; only when it is not are sequences run again one by one.
    """
    broken = [gradient for gradient in gradients if not torch.isfinite(gradient.total.sum(dtype=torch.float64))]
    if not broken:
        return
    for number in range(done):
        for gradient in gradients:
            gradient.total.zero_()
        summed_loss(model, sequences[number : number + 1].to(model.device)).sum().backward()
        for gradient in gradients:
            if not torch.isfinite(gradient.total.sum(dtype=torch.float64)):
                raise UserError(
                    f"gradients: not finite in layer {gradient.projection.layer}, {gradient.projection.name}, at "
                    f"sequence {number}; load the model in bfloat16 or float32 (evaluation.dtype), or check its weights"
                )
    raise UserError(
        f"gradients: the sum over {done} sequences is not finite in layer {broken[0].projection.layer}, though each "
        "sequence's is; load the model in float32 (evaluation.dtype)"
    )
