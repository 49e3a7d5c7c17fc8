"""Simultaneous intervals of differences, and the division of the error."""

from statistics import NormalDist

import numpy as np
import pytest

from espalier.errors import UserError
from espalier.statistics.contrasts import simultaneous_contrasts
from espalier.statistics.levels import ERROR, after_stopping, divided, page_levels, study_level


def test_intervals_by_hand() -> None:
    # Errors of the two differences over five draws; their standard deviations are sqrt(2.5) and 2 * sqrt(2.5).
    errors = np.array([[-2, 4], [-1, -4], [0, 2], [1, -2], [2, 0]], dtype=float)
    found = simultaneous_contrasts([3.0, 5.0], np.array([3.0, 5.0]) + errors, level=0.5)
    assert found.stderr == pytest.approx([2.5**0.5, 10**0.5])
    # Largest |error| / stderr of each draw, in units of 1 / sqrt(2.5): 2, 2, 1, 1, 2. Rank ceil(0.5 * 6) = 3 of them.
    assert found.critical == pytest.approx(2 / 2.5**0.5)
    assert found.intervals == pytest.approx(np.array([[1, 5], [1, 9]]))
    assert found.differs.tolist() == [True, True]


def test_a_high_level_takes_the_largest_draw() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 3))
    found = simultaneous_contrasts(np.zeros(3), draws, level=0.9999)
    assert found.critical == pytest.approx((np.abs(draws) / draws.std(axis=0, ddof=1)).max())


def test_what_does_not_vary_is_never_told_apart() -> None:
    found = simultaneous_contrasts([0.5, 0.1], [[0.5, 0.0], [0.5, 0.2], [0.5, 0.1]], level=0.95)
    assert found.differs.tolist() == [False, False]
    assert found.intervals[0].tolist() == [0.5, 0.5]
    alone = simultaneous_contrasts([0.5], [[0.5], [0.5]], level=0.95)
    assert (alone.critical, alone.differs.tolist()) == (0.0, [False])
    with pytest.raises(UserError, match="no experiment was given"):
        simultaneous_contrasts([], np.zeros((2, 0)), level=0.95)


def test_all_intervals_hold_together_in_simulated_studies() -> None:
    """Twelve correlated differences; without the maximum, about a third of the studies would be wrong."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(6, 12))
    truth = rng.normal(size=12)
    wrong = alone = 0
    for _ in range(400):
        estimate = truth + rng.normal(size=6) @ mixing
        found = simultaneous_contrasts(estimate, estimate + rng.normal(size=(999, 6)) @ mixing, level=0.95)
        inside = (found.intervals[:, 0] <= truth) & (truth <= found.intervals[:, 1])
        wrong += not inside.all()
        alone += bool((np.abs(estimate - truth) > 1.96 * found.stderr).any())
    assert wrong / 400 == pytest.approx(0.05, abs=0.025)
    assert alone / 400 > 0.2


@pytest.mark.parametrize("n_models", [1, 2, 6, 40])
def test_the_levels_of_all_pages_divide_the_error(n_models: int) -> None:
    levels = page_levels(n_models)
    of_page = sum(1 - one for one in (levels.contrasts, levels.sets, levels.relations, levels.seeds))
    study = 0.0 if n_models == 1 else 1 - study_level()
    assert n_models * of_page + study == pytest.approx(ERROR)
    assert 4 * (1 - divided(levels.sets, 4)) == pytest.approx(1 - levels.sets)
    with pytest.raises(ValueError, match="0 models"):
        page_levels(0)


@pytest.mark.parametrize("n_rungs", [1, 2, 6, 9])
def test_the_error_is_divided_among_the_rungs_that_may_be_compared(n_rungs: int) -> None:
    errors = [1 - after_stopping(0.95, rung, n_rungs) for rung in range(1, n_rungs + 1)]
    assert sum(errors) == pytest.approx(0.05)
    assert errors[0] == pytest.approx(0.05 if n_rungs == 1 else 0.025)
    assert len({round(error, 12) for error in errors[1:]}) <= 1


def false_difference(generator: np.random.Generator, *, corrected: bool) -> bool:
    """Whether a race of two equal experiments with five rungs ends with a false difference on the common documents."""
    n, sizes = 1000, (50, 200, 400, 700, 1000)
    difference = generator.choice([-1, 0, 1], n, p=[0.2, 0.6, 0.2])
    z = NormalDist().inv_cdf(1 - 0.01 / 4)
    for rung, seen in enumerate(sizes, start=1):
        mean, std = difference[:seen].mean(), difference[:seen].std(ddof=1)
        if seen == n or abs(mean) > z * std * (1 / seen - 1 / n) ** 0.5 + z**2 / 3 / seen:
            level = after_stopping(0.95, rung, len(sizes)) if corrected else 0.95
            return bool(abs(mean) > NormalDist().inv_cdf((1 + level) / 2) * std / seen**0.5)
    raise AssertionError


def test_differences_after_the_first_stop_of_a_race_are_false_in_at_most_5_percent() -> None:
    """Without the division by rungs, they are false more often."""
    generator = np.random.default_rng(0)
    uncorrected = np.mean([false_difference(generator, corrected=False) for _ in range(4000)])
    corrected = np.mean([false_difference(generator, corrected=True) for _ in range(4000)])
    assert corrected <= 0.05 + 2 * (0.05 * 0.95 / 4000) ** 0.5
    assert uncorrected > 0.05 + 4 * (0.05 * 0.95 / 4000) ** 0.5
