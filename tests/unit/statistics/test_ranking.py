"""Kendall's tau against scipy, exact p values worked out by hand, and intervals from draws."""

import numpy as np
import pytest
from scipy import stats

from espalier.errors import UserError
from espalier.statistics.ranking import compare_rankings, kendall_tau_b


def test_tau_is_scipys_with_and_without_ties() -> None:
    generator = np.random.default_rng(0)
    for n in (3, 5, 9, 40):
        before, after = generator.integers(0, n, (2, 300, n)) / n  # many ties
        ours = kendall_tau_b(before, after)
        theirs = [stats.kendalltau(x, y).statistic for x, y in zip(before, after, strict=True)]
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_by_hand() -> None:
    """1 2 3 4 against 1 3 2 4: five pairs agree and one does not, so tau is 4/6; 8 of 24 orders are as extreme."""
    found = compare_rankings([0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4])
    assert found.tau == pytest.approx(4 / 6)
    # Orders of 4 with 0, 1, 2, 3 inversions or as many agreements: 1 + 3 = 4 at each end.
    assert found.p == pytest.approx(8 / 24)
    assert found.smallest_p == pytest.approx(2 / 24)
    assert found.interval is None


def test_small_p_values_are_scipys_exact_ones() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        x, y = generator.random((2, 6))
        assert compare_rankings(x, y).p == pytest.approx(stats.kendalltau(x, y, method="exact").pvalue)
    x, y = generator.random((2, 12))
    assert compare_rankings(x, y).p == pytest.approx(stats.kendalltau(x, y).pvalue)


def test_equal_orders_of_three_show_nothing() -> None:
    found = compare_rankings([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (found.tau, found.p, found.smallest_p) == (1.0, pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_float32_rounding_makes_no_order() -> None:
    x = np.array([0.1, 0.1 + 3e-8, 0.3])
    assert compare_rankings(x, [0.1, 0.2, 0.3]).tau == pytest.approx(2 / np.sqrt(2 * 3))


def test_undefined_tau_has_a_reason() -> None:
    two = compare_rankings([0.1, 0.2], [0.1, 0.2])
    assert (two.tau, two.p) == (None, None)
    assert two.reason is not None
    assert (two.reason.code, two.reason.values) == ("too_few", {"n": 2, "needed": 3})
    flat = compare_rankings([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
    assert flat.reason is not None
    assert flat.reason.code == "no_spread"
    with pytest.raises(UserError, match="1 of 3 values of accuracy after are missing"):
        compare_rankings([0.1, 0.2, 0.3], [0.5, np.nan, 0.5])


def test_the_interval_covers_the_tau_of_the_true_accuracies() -> None:
    """If noise is small, every draw has the true order; if it is large, the interval is wide."""
    generator = np.random.default_rng(2)
    before = np.linspace(0.3, 0.8, 5)
    draws = before + 0.01 * generator.standard_normal((2_000, 5)), before + 0.01 * generator.standard_normal((2_000, 5))
    assert compare_rankings(before, before, draws).interval == (1.0, 1.0)
    noisy = draws[0], before + 0.3 * generator.standard_normal((2_000, 5))
    lower, upper = compare_rankings(before, before, noisy).interval or (1.0, 1.0)
    assert lower < 0.5 < upper


def test_unrelated_orders_are_called_related_in_few_studies() -> None:
    """At most 5% of unrelated orders of 6 have p <= 0.05, up to sampling error."""
    generator = np.random.default_rng(3)
    found = [compare_rankings(*generator.random((2, 6))).p for _ in range(400)]
    share = np.mean([p is not None and p <= 0.05 for p in found])
    # Six values allow p = 2 * (1 + 5) / 720 = 0.017 and then 2 * (1 + 5 + 14) / 720 = 0.056, so 0.017 is expected.
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
