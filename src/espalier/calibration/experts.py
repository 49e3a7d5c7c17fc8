"""Statistics of experts in passes over calibration text.

The experts of a layer are slices of two tensors, so no module of their own has inputs or outputs that could be
recorded. Inside the contexts of this module, experts are run one at a time, with the same formula. They then add their
gradients and squared inputs to sums like linear layers, or their outputs to the sums of REAP:

    reap(e) = mean over the tokens t that are routed to expert e of g_e(t) * ||f_e(t)||_2

f_e(t) is the output of the expert before it is weighted, and g_e(t) the weight that the router gives it. Source: Lasby
et al., REAP the Experts (2025), https://arxiv.org/abs/2510.13999. Without tokens, it is 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from espalier.calibration.summed_linear import LinearSums, summed_product
from espalier.errors import UserError
from espalier.models.architecture import EXPERTS
from espalier.models.decoder import decoder_layers
from espalier.models.experts import get_experts, get_router, has_experts, n_experts
from espalier.models.replaced_forward import replaced_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 8  # experts without tokens that a line of the log names
Multiply = Callable[[int, str, torch.Tensor], torch.Tensor]
Observe = Callable[[int, torch.Tensor, torch.Tensor], None]
logger = logging.getLogger(__name__)


@contextmanager
def summing_experts(layer: nn.Module, sums: Mapping[tuple[int, str], LinearSums]) -> Iterator[None]:
    """Make the experts of a layer add their gradients to sums, in backward passes inside the block.

    Args:
        layer: A layer with experts.
        sums: Sums of the weight of each projection, by the index of the expert and the name of the projection.
    """
    experts = get_experts(layer)

    def multiply(expert: int, name: str, inputs: torch.Tensor) -> torch.Tensor:
        return summed_product(inputs, getattr(experts, name)[expert], sums[expert, name])

    for name in (EXPERTS.reader, EXPERTS.writer):
        getattr(experts, name).requires_grad_(True)  # so that the backward pass reaches the products
    with _running_one_by_one(experts, multiply):
        yield


@contextmanager
def summing_router(layer: nn.Module, sums: LinearSums) -> Iterator[None]:
    """Make the router of a layer add the gradient of its weight to sums, in backward passes inside the block."""
    weight = get_router(layer).weight
    weight.requires_grad_(True)

    def add(parameter: nn.Parameter) -> None:
        sums.add_gradient(parameter.grad)
        parameter.grad = None

    handle = weight.register_post_accumulate_grad_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recording_expert_inputs(layer: nn.Module, totals: Mapping[tuple[int, str], torch.Tensor]) -> Iterator[None]:
    """Add the squared inputs of the projections of each expert to totals, in forward passes inside the block.

    Args:
        layer: A layer with experts.
        totals: Total of each projection, (in_features,), by the index of the expert and the name of the projection.
    """
    experts = get_experts(layer)

    def multiply(expert: int, name: str, inputs: torch.Tensor) -> torch.Tensor:
        totals[expert, name].add_(inputs.detach().float().square().sum(dim=0))
        return nn.functional.linear(inputs, getattr(experts, name)[expert])

    with _running_one_by_one(experts, multiply):
        yield


@dataclass(frozen=True)
class RoutedOutputs:
    """Outputs of the experts of one layer, summed over tokens.

    Attributes:
        layer: Index of the layer.
        norms: Sum over the tokens routed to each expert of weight times norm of its output, float64, (experts,).
        n_tokens: Number of tokens routed to each expert, (experts,).
    """

    layer: int
    norms: torch.Tensor
    n_tokens: torch.Tensor

    @classmethod
    def zero(cls, number: int, layer: nn.Module) -> RoutedOutputs:
        """Return sums of zero for a layer with experts."""
        device = get_router(layer).weight.device
        return cls(
            number,
            torch.zeros(n_experts(layer), dtype=torch.float64, device=device),
            torch.zeros(n_experts(layer), dtype=torch.long, device=device),
        )

    def add(self, expert: int, outputs: torch.Tensor, weights: torch.Tensor) -> None:
        """Add tokens.

        Args:
            expert: Index of the expert.
            outputs: Its outputs before they are weighted, (tokens, hidden).
            weights: Weights of the router, (tokens,).
        """
        norms = torch.linalg.vector_norm(outputs.detach().float(), dim=1)
        self.norms[expert] += (weights.detach().float() * norms).sum(dtype=torch.float64)
        self.n_tokens[expert] += len(outputs)

    def reap(self) -> npt.NDArray[np.float64]:
        """Return REAP of each expert, (experts,); 0 without tokens.

        Raises:
            UserError: If a value is not finite.
        """
        values: npt.NDArray[np.float64] = (self.norms / self.n_tokens.clamp(min=1)).cpu().numpy()
        if not np.isfinite(values).all():
            expert = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(
                f"reap: the output of expert {expert} of layer {self.layer} is not finite; load the model in "
                "bfloat16 or float32 (evaluation.dtype), or check its weights"
            )
        return values


@contextmanager
def recording_outputs(model: PreTrainedModel) -> Iterator[list[RoutedOutputs]]:
    """Record the outputs of all experts in forward passes inside the block. The yielded sums are updated in place."""
    found: list[RoutedOutputs] = []
    with ExitStack() as stack:
        for number, layer in enumerate(decoder_layers(model)):
            if has_experts(layer):
                found.append(RoutedOutputs.zero(number, layer))
                experts = get_experts(layer)
                multiply = partial(_multiply, experts)
                stack.enter_context(_running_one_by_one(experts, multiply, found[-1].add))
        yield found


@contextmanager
def counting_tokens(model: PreTrainedModel) -> Iterator[dict[int, torch.Tensor]]:
    """Count the tokens that are routed to each expert in forward passes inside the block.

    Yields:
        Numbers of tokens, (experts,), by the index of the layer, updated in place. Tokens of repeated passes count
        again. Empty for a dense model.
    """
    counts: dict[int, torch.Tensor] = {}

    def count(number: int, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        counts[number] += torch.bincount(args[1].flatten(), minlength=len(counts[number]))

    with ExitStack() as stack:
        for number, layer in enumerate(decoder_layers(model)):
            if has_experts(layer):
                counts[number] = torch.zeros(n_experts(layer), dtype=torch.long, device=get_router(layer).weight.device)
                handle = get_experts(layer).register_forward_pre_hook(partial(count, number))
                stack.callback(handle.remove)
        yield counts


def log_unreached(counts: Mapping[int, torch.Tensor], what: str) -> None:
    """Write a line to the log for each layer with experts that no token reached.

    Args:
        counts: Tokens routed to each expert, (experts,), by the index of the layer.
        what: The text that was read, such as "32 sequences of 64 tokens".
    """
    for layer, tokens in counts.items():
        unreached: Sequence[int] = (tokens == 0).nonzero().flatten().tolist()
        if unreached:
            shown = ", ".join(map(str, unreached[:SHOWN])) + (", ..." if len(unreached) > SHOWN else "")
            logger.warning(
                "layer %d: no token of %s was routed to %d of %d experts (%s), so nothing is known of them; use more "
                "calibration samples", layer, what, len(unreached), len(tokens), shown,
            )  # fmt: skip


def _multiply(experts: nn.Module, expert: int, name: str, inputs: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(inputs, getattr(experts, name)[expert])


def _running_one_by_one(
    experts: nn.Module, multiply: Multiply, observe: Observe | None = None
) -> AbstractContextManager[None]:
    """Run the experts of a layer one at a time inside the block, each on the tokens that are routed to it."""
    return replaced_forward(experts, partial(_forward, experts, multiply, observe))


def _forward(
    experts: nn.Module,
    multiply: Multiply,
    observe: Observe | None,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Return the weighted sum of the experts' outputs, (tokens, hidden).

    Args:
        experts: Module of all experts of a layer.
        multiply: Product of inputs with the weight of a projection of one expert.
        observe: Called with each expert, its outputs and its weights.
        hidden_states: Inputs, (tokens, hidden).
        top_k_index: Experts that each token is routed to, (tokens, k).
        top_k_weights: Their weights, (tokens, k).
    """
    output = torch.zeros_like(hidden_states)
    for expert in top_k_index.unique().tolist():
        token, place = torch.where(top_k_index == expert)
        gate, up = multiply(expert, EXPERTS.reader, hidden_states[token]).chunk(2, dim=-1)
        found = multiply(expert, EXPERTS.writer, experts.act_fn(gate) * up)
        weights = top_k_weights[token, place]
        if observe is not None:
            observe(expert, found, weights)
        output.index_add_(0, token, (found * weights[:, None]).to(output.dtype))
    return output
