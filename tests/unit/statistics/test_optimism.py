"""The optimism of the winner: shrinkage and split halves."""

import numpy as np
import pytest

from espalier.errors import UserError
from espalier.statistics import optimism as module
from espalier.statistics.optimism import shrinkage, split_half
from tests.unit.statistics.studies import study

THETA = np.array([0.7, 0.6, 0.5])


def test_shrinkage_by_hand() -> None:
    # Errors +-(0.05, 0, -0.05): variances (ddof 1, two draws) 2 * 0.0025 = 0.005, 0, 0.005; noise 0.01 / 2 = 0.005.
    # Observed variance (0.01 + 0 + 0.01) / 2 = 0.01; noise share 0.5; optimism 0.5 * (0.7 - 0.6) = 0.05.
    error = np.array([[0.05, 0, -0.05], [-0.05, 0, 0.05]])
    found = shrinkage(THETA, THETA + error)
    assert found.noise_variance == pytest.approx(0.005)
    assert found.observed_variance == pytest.approx(0.01)
    assert found.noise_share == pytest.approx(0.5)
    assert found.optimism == pytest.approx(0.05)
    assert found.corrected == pytest.approx(0.65)
    # An error that all experiments share does not affect the choice of the best.
    shared = shrinkage(THETA, THETA + error + np.array([[0.3], [-0.3]]))
    assert shared.noise_variance == pytest.approx(0.005)
    # With more noise than observed variance, the noise share is 1 and the corrected value is the mean.
    clipped = shrinkage(THETA, THETA + 4 * error)
    assert (clipped.noise_share, clipped.corrected) == (1, pytest.approx(0.6))


def test_shrinkage_where_undefined() -> None:
    alone = shrinkage([0.5], [[0.4], [0.6]])
    assert (alone.noise_variance, alone.observed_variance, alone.optimism) == (None, None, None)
    assert alone.reason is not None
    assert alone.reason.code == "too_few"
    equal = shrinkage([0.5, 0.5], [[0.4, 0.5], [0.6, 0.5]])
    assert equal.noise_share is None
    assert equal.reason is not None
    assert equal.reason.code == "no_spread"
    with pytest.raises(UserError, match="missing or infinite"):
        shrinkage([0.5, np.nan], np.zeros((2, 2)))


def test_shrinkage_is_right_on_average() -> None:
    """Standard deviations are 2 (truth) and 1 (error); over 2,000 studies, mean estimate and mean optimism agree."""
    generator = np.random.default_rng(5)
    error = generator.standard_normal((500, 20))
    estimated, real = [], []
    for _ in range(2_000):
        truth = 2 * generator.standard_normal(20)
        theta = truth + generator.standard_normal(20)
        found = shrinkage(theta, theta + error)
        estimated.append(found.optimism)
        real.append(theta.max() - truth[theta.argmax()])
    # E[max of 20 normals] = 1.867; optimism = noise variance / total deviation * that = 1 / sqrt(5) * 1.867 = 0.835.
    assert np.mean(real) == pytest.approx(0.835, abs=0.06)  # its standard error is 0.9 / sqrt(2,000) = 0.02
    assert np.mean(estimated) == pytest.approx(np.mean(real), rel=0.1)


def test_split_half_of_a_clear_winner() -> None:
    found = split_half(study({"a": [[0] * 6, [1] * 6]}), seed=0, n_splits=50)
    assert (found.optimism, found.chosen_on, found.scored_on) == (0, 1, 1)
    assert found.chosen_share.tolist() == [0, 1]


def test_split_half_by_hand() -> None:
    # Two documents, each right in one experiment: the chosen one has 1 on its half and 0 on the other half.
    two = split_half(study({"a": [[1, 0], [0, 1]]}), seed=0, n_splits=20)
    assert (two.optimism, two.optimism_std, two.scored_on) == (1, 0, 0)
    assert two.chosen_share.tolist() == [0.5, 0.5]
    # Four documents, x right on 0 and 1, y on 2 and 3. Of six splits two separate the pairs (optimism 1), four do not
    # (both score 0.5 on both halves, optimism 0): 1/3 on average.
    four = split_half(study({"a": [[1, 1, 0, 0], [0, 0, 1, 1]]}), seed=0, n_splits=20_000)
    assert four.optimism == pytest.approx(1 / 3, abs=0.015)
    assert four.optimism_std == pytest.approx(np.sqrt(1 / 3 * 2 / 3), abs=0.01)
    assert four.chosen_share == pytest.approx([0.5, 0.5])


def test_split_half_weighs_tasks_alike_and_takes_odd_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # x is right on all of a, y on all of b: means are 0.5 on any half, whatever the sizes, so both are chosen.
    unequal = study({"a": [[1] * 7, [0] * 7], "b": [[0] * 2, [1] * 2]})
    found = split_half(unequal, seed=0, n_splits=30)
    assert (found.optimism, found.chosen_on) == (0, 0.5)
    assert found.chosen_share.tolist() == [0.5, 0.5]
    monkeypatch.setattr(module, "_VALUES_PER_CHUNK", 10)
    assert split_half(unequal, seed=0, n_splits=30).chosen_on == 0.5


def test_split_half_needs_two_documents() -> None:
    with pytest.raises(UserError, match="task a has 1 document"):
        split_half(study({"a": [[1], [0]]}), seed=0)
    assert split_half(study({"a": [[1, 0]]}), seed=0, n_splits=1).optimism_std == 0
