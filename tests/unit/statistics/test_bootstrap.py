"""Joint bootstrap over documents, and uncertainty from counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from espalier.errors import UserError
from espalier.statistics import bootstrap as module
from espalier.statistics.bootstrap import bootstrap, percentile_interval
from espalier.statistics.counts import draw_from_counts
from tests.unit.statistics.studies import study

GENERATOR = np.random.default_rng(0)
DIFFICULTY = GENERATOR.beta(0.2, 0.2, size=400)
STUDY = study({
    "a": np.vstack([GENERATOR.random((2, 400)) < DIFFICULTY, np.ones((1, 400))]),
    "b": np.vstack([GENERATOR.random((2, 150)) < DIFFICULTY[:150], np.ones((1, 150))]),
})  # fmt: skip


def test_deviations_equal_the_closed_form() -> None:
    # Var = sum over tasks of weight**2 * p (1 - p) / n; covariances with mean(c_i c_j) - p_i p_j instead.
    drawn = bootstrap(STUDY, seed=1, n_draws=20_000)
    expected = sum(task.weight**2 * np.cov(task.correct, bias=True) / task.n_documents for task in STUDY.tasks)
    # The standard deviation of 20,000 draws has a relative error of 1 / sqrt(40,000) = 0.5%.
    assert drawn.stderr[:2] == pytest.approx(np.sqrt(np.diag(expected))[:2], rel=0.02)
    correlation = expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])
    assert correlation > 0.2  # a test of covariances needs shared documents
    assert drawn.covariance[0, 1] == pytest.approx(expected[0, 1], rel=0.1)
    assert drawn.draws.mean(axis=0) == pytest.approx(STUDY.acc_mean, abs=0.001)


def test_weights_of_a_draw_sum_to_the_number_of_documents() -> None:
    drawn = bootstrap(STUDY, seed=1, n_draws=500)
    assert (drawn.draws[:, 2] == 1).all()  # correct on every document, so also on every drawn one
    assert drawn.intervals()[2].tolist() == [1, 1]


def test_interval_by_hand() -> None:
    # One task of 2 documents, one right: a draw has 0, 1 or 2 right ones with probability 1/4, 1/2, 1/4.
    drawn = bootstrap(study({"a": [[1, 0]]}), seed=0, n_draws=20_000)
    shares = [(drawn.draws[:, 0] == value).mean() for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.015)
    assert drawn.intervals(0.95).tolist() == [[0, 1]]
    assert drawn.intervals(0.4).tolist() == [[0.5, 0.5]]


def test_ends_of_intervals_are_the_last_axis() -> None:
    draws = np.arange(11.0)[:, None, None] + np.array([[0, 100, 200], [300, 400, 500]])  # (n_draws, 2, 3)
    found = percentile_interval(draws, 0.8)  # cuts off a tenth at each end: 1 and 9
    assert found.shape == (2, 3, 2)
    assert found[1, 2].tolist() == [501, 509]


def test_draws_do_not_depend_on_chunks_or_on_other_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(STUDY, seed=3, n_draws=100)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 8 * 400 * 7)
    assert (bootstrap(STUDY, seed=3, n_draws=100).draws == whole.draws).all()
    alone = bootstrap(STUDY.select(["x1"]), seed=3, n_draws=100)
    assert alone.draws[:, 0] == pytest.approx(whole.draws[:, 1], abs=1e-15)
    assert alone.origin == whole.origin
    assert bootstrap(STUDY, seed=4, n_draws=100).origin != whole.origin
    assert (bootstrap(STUDY, seed=4, n_draws=100).draws != whole.draws).any()


def test_selecting_and_averaging() -> None:
    drawn = bootstrap(STUDY, seed=0, n_draws=50)
    assert drawn.source == "documents"
    chosen = drawn.select(["x2", "x0"])
    assert chosen.experiments == ("x2", "x0")
    assert chosen.accuracy.tolist() == [1.0, STUDY.acc_mean[0]]
    assert (chosen.draws == drawn.draws[:, [2, 0]]).all()
    averaged = drawn.averaged(["m", "m", "n"])
    assert averaged.experiments == ("m", "n")
    assert averaged.accuracy[0] == pytest.approx(STUDY.acc_mean[:2].mean())
    assert averaged.draws[:, 0] == pytest.approx(drawn.draws[:, :2].mean(axis=1))
    with pytest.raises(UserError, match="x7"):
        drawn.select(["x7"])
    with pytest.raises(ValueError, match="1 labels for 3"):
        drawn.averaged(["m"])


def test_one_document_says_nothing_about_others() -> None:
    with pytest.raises(UserError, match="task a has 1 document"):
        bootstrap(study({"a": [[1]]}), seed=0)


def test_draws_from_counts() -> None:
    accuracy, n = np.array([[0.5, 0.2], [0.6, 0.3]]), [200, 100]
    drawn = draw_from_counts(["x", "y"], accuracy, n, model="m", seed=0, n_draws=20_000)
    assert drawn.source == "counts"
    variance = (accuracy * (1 - accuracy) / n).sum(axis=1) / 4
    assert drawn.stderr == pytest.approx(np.sqrt(variance), rel=0.02)
    assert abs(drawn.covariance[0, 1]) < 0.03 * variance[0]  # nothing is shared
    other = draw_from_counts(["x", "y"], accuracy, n, model="another", seed=0, n_draws=20_000)
    assert abs(np.corrcoef(drawn.draws[:, 0], other.draws[:, 0])[0, 1]) < 0.03


def test_unusable_counts_are_refused() -> None:
    def draw(accuracy: Any, n_documents: Any, names: Sequence[str] = ("x",)) -> None:
        draw_from_counts(names, accuracy, n_documents, model="m", seed=0, n_draws=10)

    with pytest.raises(UserError, match="1 of 2 values of task accuracies are missing"):
        draw([[0.5, np.nan]], [10, 10])
    with pytest.raises(UserError, match="between 0 and 1"):
        draw([[50.0]], [10])
    with pytest.raises(UserError, match="has 1 documents"):
        draw([[0.5]], [1])
    with pytest.raises(UserError, match="no task accuracy"):
        draw(np.zeros((0, 0)), [])
    with pytest.raises(ValueError, match="2 names for 1"):
        draw([[0.5]], [10], ["x", "y"])
