"""Linear layers that add the gradients of their parameters to float32 sums, instead of keeping them in `.grad`.

For inputs X (tokens, in_features) and the gradient G of the loss with respect to the outputs (tokens, out_features),
the gradient of the weight is G^T X and that of the bias is the sum of G over tokens. PyTorch writes G^T X in the dtype
of the weight, copies it to `.grad`, and a hook would then add it to the sum: three passes over memory that take longer
than the product itself (docs/benchmarks.md). Here the matrix product adds to the sum.

Half-precision products are accumulated in float32 by the hardware. On a GPU they are also written in float32, so they
are not rounded before they are added. On the CPU, PyTorch has no such product, and they are rounded to the dtype of the
weight first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from espalier.models.replaced_forward import replaced_forward


@dataclass(frozen=True)
class LinearSums:
    """Sums of one linear layer, float32 tensors in the shapes of its parameters. A sum that is not needed is None.

    Squared gradients are those of the whole batch, so a batch must then hold one sequence.
    """

    weight: torch.Tensor | None
    squared_weight: torch.Tensor | None
    bias: torch.Tensor | None
    squared_bias: torch.Tensor | None

    def add(self, outputs_gradient: torch.Tensor, inputs: torch.Tensor) -> None:
        """Add the gradients of one batch.

        Args:
            outputs_gradient: Gradient of the loss with respect to the outputs, (tokens, out_features).
            inputs: Inputs, (tokens, in_features).
        """
        if self.squared_weight is not None:
            gradient = (outputs_gradient.t() @ inputs).float()
            self.squared_weight.addcmul_(gradient, gradient)
            if self.weight is not None:
                self.weight.add_(gradient)
        elif self.weight is not None:
            add_product(self.weight, outputs_gradient.t(), inputs)
        if self.bias is not None or self.squared_bias is not None:
            gradient = outputs_gradient.sum(dim=0, dtype=torch.float32)
            if self.bias is not None:
                self.bias.add_(gradient)
            if self.squared_bias is not None:
                self.squared_bias.addcmul_(gradient, gradient)

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Add a gradient of the weight that was computed elsewhere, in the shape of the weight."""
        if self.squared_weight is not None:
            self.squared_weight.addcmul_(gradient.float(), gradient.float())
        if self.weight is not None:
            self.weight.add_(gradient)


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add the matrix product of `a` (n, k) and `b` (k, m) to `total` (n, m), which is float32."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif writes_float32(a.device, a.dtype):
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.add_(a @ b)


@cache
def writes_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether `torch.addmm` adds products of this dtype to a float32 matrix, found out with a small example.

    PyTorch can do this on CUDA devices from version 2.8 on.
    """
    if device.type != "cuda" or dtype not in {torch.bfloat16, torch.float16}:
        return False
    total = torch.ones(16, 16, device=device)
    one = torch.ones(16, 16, device=device, dtype=dtype)
    try:
        torch.addmm(total, one, one, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):  # not offered by this version of PyTorch
        return False
    return bool((total == 17).all())


def summed_linear(linear: nn.Linear, sums: LinearSums) -> AbstractContextManager[None]:
    """Make a linear layer add its gradients to `sums` in backward passes inside the block.

    The weight must require a gradient. It gets none, but the backward pass then reaches this layer.
    """
    return replaced_forward(linear, partial(_forward, linear, sums))


def _forward(linear: nn.Linear, sums: LinearSums, inputs: torch.Tensor) -> torch.Tensor:
    outputs: torch.Tensor = _SummedLinear.apply(inputs, linear.weight, linear.bias, sums)
    return outputs


def summed_product(inputs: torch.Tensor, weight: torch.Tensor, sums: LinearSums) -> torch.Tensor:
    """Return the product of inputs and a weight, whose gradient is added to sums in the backward pass.

    Args:
        inputs: (tokens, in_features).
        weight: (out_features, in_features). It or the inputs must require a gradient.
        sums: Sums of the weight.

    Returns:
        (tokens, out_features).
    """
    outputs: torch.Tensor = _SummedLinear.apply(inputs, weight, None, sums)
    return outputs


class _SummedLinear(torch.autograd.Function):  # type: ignore[misc]  # torch does not type this class
    """`torch.nn.functional.linear` whose backward pass adds the parameters' gradients to sums."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, sums: LinearSums
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.sums = sums
        return functional.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, outputs_gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        inputs, weight = ctx.saved_tensors
        ctx.sums.add(outputs_gradient.flatten(0, -2), inputs.flatten(0, -2))
        return (outputs_gradient @ weight if ctx.needs_input_grad[0] else None), None, None, None
