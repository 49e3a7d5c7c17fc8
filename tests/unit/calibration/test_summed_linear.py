"""Linear layers that add their gradients to sums: the gradients are those of autograd."""

import pytest
import torch
from torch import nn

from espalier.calibration.summed_linear import LinearSums, add_product, summed_linear, writes_float32


def sums_of(linear: nn.Linear, *, squared: bool = False) -> LinearSums:
    weight, bias = torch.zeros(linear.weight.shape), None if linear.bias is None else torch.zeros(linear.bias.shape)
    if not squared:
        return LinearSums(weight, None, bias, None)
    return LinearSums(weight, weight.clone(), bias, None if bias is None else bias.clone())


def run(linear: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """Run forward and backward, and return the gradient of the inputs."""
    inputs = inputs.clone().requires_grad_()
    linear(inputs).square().sum().backward()
    assert inputs.grad is not None
    return inputs.grad


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)], ids=str)
def test_sums_are_the_gradients_of_autograd(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(4, 3, bias=bias), torch.randn(2, *shape)
    expected = [run(linear, one) for one in inputs]
    weight, of_bias = linear.weight.grad.clone(), None if linear.bias is None else linear.bias.grad.clone()
    linear.zero_grad()
    sums = sums_of(linear)
    with summed_linear(linear, sums):
        found = [run(linear, one) for one in inputs]
    assert linear.weight.grad is None
    torch.testing.assert_close(sums.weight, weight)
    if of_bias is not None:
        torch.testing.assert_close(sums.bias, of_bias)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_squares_are_those_of_each_batch() -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(4, 3), torch.randn(3, 5, 4)
    squares = [torch.zeros(3, 4), torch.zeros(3)]
    for one in inputs:
        linear.zero_grad()
        run(linear, one)
        for total, parameter in zip(squares, (linear.weight, linear.bias), strict=True):
            total.add_(parameter.grad**2)
    sums = sums_of(linear, squared=True)
    with summed_linear(linear, sums):
        for one in inputs:
            run(linear, one)
    torch.testing.assert_close(sums.squared_weight, squares[0])
    torch.testing.assert_close(sums.squared_bias, squares[1])


def test_a_layer_whose_inputs_need_no_gradient_is_reached() -> None:
    linear = nn.Linear(4, 3)
    sums = sums_of(linear)
    with summed_linear(linear, sums):
        linear(torch.ones(2, 4)).sum().backward()
    assert torch.equal(sums.weight, torch.full((3, 4), 2.0))


def test_forward_is_restored() -> None:
    linear, wrapped = nn.Linear(4, 3), nn.Linear(4, 3)
    wrapped.forward = wrapper = wrapped.forward
    for one in (linear, wrapped):
        with pytest.raises(KeyError), summed_linear(one, sums_of(one)):
            raise KeyError
    assert "forward" not in vars(linear)
    assert vars(wrapped)["forward"] is wrapper


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_products_are_added_in_float32(dtype: torch.dtype) -> None:
    """A sum of 1,000 ones is lost in bfloat16 from 256 on."""
    total = torch.zeros(2, 3)
    for _ in range(1000):
        add_product(total, torch.ones(2, 1, dtype=dtype), torch.ones(1, 3, dtype=dtype))
    assert torch.equal(total, torch.full((2, 3), 1000.0))


def test_the_cpu_has_no_product_that_writes_float32() -> None:
    assert not writes_float32(torch.device("cpu"), torch.bfloat16)
