"""Correlations, pooled and within methods."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from espalier.statistics.correlation import Strength, correlation, grouped_correlation, strength


def test_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-0.1, 0.1, 0): 0.1 / sqrt(2 * 0.02) = 0.5.
    found = correlation([1, 2, 3], [0.2, 0.4, 0.3])
    assert found.r == pytest.approx(0.5)
    assert (found.n, found.n_distinct, found.reason) == (3, 3, None)


def test_only_experiments_with_both_values_count() -> None:
    found = correlation([1, 1, 2, 3, math.nan, 4, math.inf], [1, 1, 2, 3, 9, math.nan, 1])
    assert found.r == pytest.approx(1)
    assert (found.n, found.n_distinct) == (4, 3)


def reason(x: list[float], y: list[float]) -> tuple[str, dict[str, object]]:
    found = correlation(x, y, x_name="ppl", y_name="acc_mean")
    assert found.r is None
    assert found.reason is not None
    return found.reason.code, dict(found.reason.values)


def test_undefined_ones_say_why() -> None:
    assert reason([], []) == ("no_values", {"name": "ppl"})
    assert reason([math.inf] * 3, [1, 2, 3]) == ("no_values", {"name": "ppl"})
    assert reason([1, 2], [1, 2]) == ("too_few", {"n": 2, "needed": 3})
    assert reason([5, 5, 5], [1, 2, 3]) == ("constant", {"name": "ppl"})
    assert reason([0, 0, 0], [1, 2, 3]) == ("constant", {"name": "ppl"})
    assert reason([1, 2, 3], [0.1] * 3) == ("constant", {"name": "acc_mean"})
    assert reason([1, 1 + 1e-16, 1 + 3e-16], [1, 2, 3]) == ("too_close", {"name": "ppl"})
    with pytest.raises(ValueError, match="different lengths"):
        correlation([1, 2], [1])


VALUES = arrays(np.float64, 8, elements=st.floats(-1e300, 1e300))


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_r_is_between_minus_one_and_one_or_has_a_reason(x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    found, turned = correlation(x, y), correlation(y, -x)
    assert (found.r is None) != (found.reason is None)
    if found.r is not None:
        assert -1 <= found.r <= 1
        assert turned.r == pytest.approx(-found.r, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-300, 300), st.floats(0.1, 1000))
def test_scale_and_shift_do_not_matter(seed: int, shift: float, scale: float) -> None:
    x, y = np.random.default_rng(seed).standard_normal((2, 20))
    expected = np.corrcoef(x, y)[0, 1]
    assert correlation(shift + scale * x, y).r == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("r", "word"),
    [(0, "none"), (-0.499, "none"), (0.5, "moderate"), (-0.7, "moderate"), (0.701, "strong"), (-1, "strong")],
)
def test_strength_of_a_correlation(r: float, word: Strength) -> None:
    assert strength(r) == word


def with_correlation(r: float, n: int, seed: int) -> NDArray[np.float64]:
    """Return n random points with exactly this correlation, means 0 and standard deviations 1: (2, n)."""
    raw = np.random.default_rng(seed).standard_normal((2, n))
    raw -= raw.mean(axis=1, keepdims=True)
    x = raw[0] / raw[0].std()
    rest = raw[1] - (raw[1] @ x) / n * x
    return np.stack([x, r * x + np.sqrt(1 - r**2) * rest / rest.std()])


def test_published_pattern_pooled_negative_within_mixed() -> None:
    """As published for Qwen: -0.75 pooled, +0.22, +0.41 and -0.77 within methods of 15 experiments each."""
    within = {"taylor": 0.22, "layerwise": 0.41, "blockwise": -0.77}
    centres = {"taylor": (14, 0.59), "layerwise": (13, 0.585), "blockwise": (30, 0.51)}
    spreads = {"taylor": (2, 0.013), "layerwise": (2, 0.021), "blockwise": (8, 0.047)}
    x, y, methods = [], [], []
    for seed, (method, r) in enumerate(within.items()):
        points = with_correlation(r, 15, seed)
        x += list(centres[method][0] + spreads[method][0] * points[0])
        y += list(centres[method][1] + spreads[method][1] * points[1])
        methods += [method] * 15
    found = grouped_correlation(x, y, methods)
    assert found.pooled.r is not None
    assert found.pooled.r < -0.7  # would count as strong without the methods
    assert {method: one.r for method, one in found.within.items()} == pytest.approx(within)
    assert found.mean_within == pytest.approx((0.22 + 0.41 - 0.77) / 3)
    assert found.strength == "none"
    assert found.mixed_signs
    assert not found.sign_differs  # both are negative, though only one of three methods is


def test_opposite_signs_are_flagged() -> None:
    # Within each method y grows with x; the second method has larger x and smaller y.
    found = grouped_correlation([1, 2, 3, 11, 12, 13], [5, 6, 7, 1, 2, 3], ["m", "m", "m", "n", "n", "n"])
    assert found.mean_within == pytest.approx(1)
    assert (found.strength, found.sign_differs, found.mixed_signs, found.n_groups) == ("strong", True, False, 2)


def test_methods_where_it_is_undefined_are_left_out_of_the_mean() -> None:
    found = grouped_correlation([1, 2, 3, 5, 5, 5, 1], [1, 2, 2, 1, 2, 3, 1], ["m"] * 3 + ["n"] * 3 + ["o"])
    # (-1, 0, 1) and (-2, 1, 1) / 3: 1 / sqrt(2 * 6 / 9) = 0.866.
    assert found.mean_within == pytest.approx(0.8660254)
    assert found.n_groups == 1
    assert [one.reason.code if one.reason else None for one in found.within.values()] == [None, "constant", "too_few"]


def test_nothing_within_any_method() -> None:
    found = grouped_correlation([1, 2, 3], [1, 2, 3], ["m", "n", "o"])
    assert found.pooled.r == pytest.approx(1)
    assert (found.mean_within, found.strength, found.sign_differs, found.mixed_signs) == (None, None, None, None)
    assert found.reason is not None
    assert found.reason.code == "too_few"
    assert grouped_correlation([], [], []).reason is not None
