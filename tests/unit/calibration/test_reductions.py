"""Sums over parameters: pieces, moments, values that are not finite, and the kernel for GPUs."""

import math
import sys

import numpy as np
import pytest
import torch

from espalier.calibration import reductions
from espalier.calibration.gradients import NonFiniteError, Sums
from espalier.calibration.reductions import ELEMENTS_AT_ONCE, ReducedParameter, reduce_parameters
from espalier.models.decoder import Projection
from espalier.planning.criteria import CRITERIA


def sums_of(name: str, *, rows: int = 9, columns: int = 7, dtype: torch.dtype = torch.float32) -> Sums:
    generator = torch.Generator().manual_seed(3)
    parameter = torch.nn.Parameter(torch.randn(rows, columns, generator=generator).to(dtype))
    gradient, squared = (torch.randn(rows, columns, generator=generator) for _ in range(2))
    inputs = torch.rand(columns, generator=generator)
    return Sums(Projection(0, name, "mlp", parameter, None), parameter, gradient, squared.square(), inputs)


def reduce(each: Sums, criterion: str = "taylor") -> ReducedParameter:
    (found,) = reduce_parameters(CRITERIA[criterion], [each], 4)
    return found


@pytest.mark.parametrize("name", ["up_proj", "down_proj"])
@pytest.mark.parametrize("criterion", ["taylor", "taylor2", "wanda", "magnitude"])
def test_pieces_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch, name: str, criterion: str) -> None:
    whole = reduce(sums_of(name), criterion)
    monkeypatch.setitem(ELEMENTS_AT_ONCE, "cpu", 15)  # two rows at a time
    found = reduce(sums_of(name), criterion)
    np.testing.assert_allclose(found.features, whole.features, rtol=1e-6)
    assert found.moments == pytest.approx(whole.moments, rel=1e-6)
    assert len(found.features) == (9 if name == "up_proj" else 7)


@pytest.mark.parametrize("name", ["up_proj", "down_proj"])
def test_sums_are_those_of_float64(name: str) -> None:
    each = sums_of(name, rows=300, columns=200)
    found = reduce(each)
    weight, gradient = each.parameter.detach().double().numpy(), each.gradient.double().numpy()
    np.testing.assert_allclose(
        found.features, np.abs(weight * gradient / 4).sum(axis=1 if name == "up_proj" else 0), rtol=1e-5
    )
    expected = (np.abs(gradient).sum(), (gradient**2).sum(), np.abs(gradient).max())
    assert found.moments == pytest.approx(expected, rel=1e-5)


def test_squares_that_overflow_float32_are_summed_in_float64() -> None:
    each = sums_of("up_proj")
    each.gradient.fill_(1e25)
    assert reduce(each).moments == pytest.approx((63 * 1e25, 63 * 1e50, 1e25))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_found(value: float) -> None:
    each = sums_of("up_proj")
    each.gradient[8, 6] = value
    with pytest.raises(NonFiniteError, match="layer 0, up_proj"):
        reduce(each)


def test_a_weight_that_is_not_finite_is_found() -> None:
    each = sums_of("down_proj")
    with torch.no_grad():
        each.parameter[0, 0] = math.inf
    with pytest.raises(NonFiniteError, match="layer 0, down_proj"):
        reduce(each, "magnitude")


def test_without_triton_separate_operations_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espalier.calibration.taylor_kernel", None)
    reductions._taylor_kernel.cache_clear()
    assert reductions._taylor_kernel() is None
    reductions._taylor_kernel.cache_clear()


def test_a_criterion_of_groups_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^this criterion looks at no weights$"):
        reduce_parameters(CRITERIA["random"], [], 1)
