"""Statements about results."""

from dataclasses import replace

import numpy as np
import pytest

from espalier.messages.catalogue import Message, catalogue, render_message
from espalier.statistics.bootstrap import bootstrap
from espalier.statistics.conclusions import (
    axes_messages,
    base_vs_instruct_messages,
    confidence_set_messages,
    correlation_messages,
    intervals_message,
    optimism_messages,
)
from espalier.statistics.confidence_set import ConfidenceSet
from espalier.statistics.correlation import grouped_correlation
from espalier.statistics.counts import draw_from_counts
from espalier.statistics.optimism import shrinkage, split_half
from espalier.statistics.seeds import seed_errors
from tests.unit.statistics.studies import study


def english(message: Message) -> str:
    return render_message(message, catalogue("en"))


def codes(messages: list[Message]) -> list[str]:
    for message in messages:
        assert "nan" not in english(message).lower().split()
    return [message.code for message in messages]


def confidence(members: list[bool], simultaneous: list[bool] | None = None) -> ConfidenceSet:
    zeros = np.zeros(len(members))
    return ConfidenceSet(0.95, zeros, zeros, np.array(members), 0.0, np.array(simultaneous or members))


def test_confidence_set_messages() -> None:
    """All statements are about the simultaneous set, whatever the pointwise set is."""
    some = confidence_set_messages(confidence([True, False, False], [True, True, False]), ["a", "b", "c"], "a-1")
    assert codes(some) == ["set_some", "methods_outside"]
    assert english(some[0]) == "2 of 3 experiments cannot be told from the best, a-1; the others are worse."
    assert english(some[1]) == "All experiments of c are worse than the best."
    alone = confidence_set_messages(confidence([True, False]), ["a", "b"], "a-1")
    assert english(alone[0]) == "Every other experiment (1) is worse than the best, a-1."
    assert codes(confidence_set_messages(confidence([True, True]), ["a", "b"], "a-1")) == ["set_all"]
    assert codes(confidence_set_messages(confidence([True, False, True]), ["a", "a", "b"], "a-1")) == ["set_some"]
    assert codes(confidence_set_messages(confidence([True]), ["a"], "a-1")) == ["set_one_experiment"]
    with pytest.raises(ValueError, match="1 methods for 2"):
        confidence_set_messages(confidence([True, True]), ["a"], "a-1")


def test_optimism_messages() -> None:
    one = study({"a": [[1, 1, 1, 0], [1, 0, 0, 0]]})
    drawn = bootstrap(one, seed=0, n_draws=200)
    halves = split_half(one, seed=0, n_splits=10)
    messages = optimism_messages(one.experiments, "x0", shrinkage(drawn.accuracy, drawn.draws), halves)
    assert codes(messages) == ["optimism_shrinkage", "optimism_split_half"]
    assert "half of the documents" in english(messages[1])
    equal = optimism_messages(("x", "y"), "x", shrinkage([0.5, 0.5], [[0.5, 0.4], [0.5, 0.6]]), None)
    assert english(equal[0]) == "The winner's optimism is undefined: all experiments have the same accuracy."
    alone = optimism_messages(("x",), "x", shrinkage([0.5], [[0.5], [0.4]]), split_half(one.select(["x0"]), seed=0))
    assert codes(alone) == ["optimism_undefined"]


def test_a_relation_needs_more_than_a_few_settings() -> None:
    few = grouped_correlation([1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8], ["m"] * 4 + ["n"] * 4)
    assert few.mean_within == pytest.approx(1)
    assert correlation_messages("ppl", few, 0.95) == []  # four values of the metric
    x = list(range(12))
    many = grouped_correlation(x, [-value + 0.1 * (value % 3) for value in x], ["m"] * 6 + ["n"] * 6)
    messages = correlation_messages("ppl", many, 0.95)
    assert english(messages[0]).startswith("Within methods, ppl and accuracy have a negative relation (mean r -1.00")
    # r = 0.6 of 8 points: atanh(0.6) * sqrt(5) = 1.55, below the normal quantile 1.96.
    noisy = grouped_correlation(range(8), [0, 4, 1, 5, 2, 3, 7, 4], ["m"] * 8)
    assert noisy.mean_within == pytest.approx(0.6, abs=0.06)
    assert correlation_messages("ppl", noisy, 0.95) == []
    assert codes(correlation_messages("ppl", noisy, 0.80)) == ["relation_shown"]
    undefined = grouped_correlation([1, 2], [1, 2], ["m", "m"], x_name="ppl")
    assert correlation_messages("ppl", undefined, 0.95) == []


def test_axes_messages() -> None:
    axes = {"method": ["x", "x", "y", "y"], "taylor_seq_len": [16, 64, 16, 64]}
    assert codes(axes_messages(seed_errors([0.1] * 4, axes, [0] * 4), 0.95)) == ["one_seed_only"]
    assert axes_messages(None, 0.95) == []
    by_seed = {name: values * 2 for name, values in axes.items()}
    accuracy = [0.1, 0.2, 0.9, 1.0, 0.1, 0.3, 0.9, 1.0]
    seeds = seed_errors(accuracy, by_seed, [0] * 4 + [1] * 4)
    assert codes(axes_messages(seeds, 0.95)) == ["axis_beyond_seeds", "axis_within_seeds"]
    assert codes(axes_messages(seeds, 1 - 1e-9)) == ["axis_within_seeds"] * 2


def test_base_vs_instruct_messages() -> None:
    lower = base_vs_instruct_messages("kept", -0.1, [-0.15, -0.04], 12)
    assert english(lower[0]) == (
        "On the same settings (12 settings), Instruct keeps 10.0 points less than Base (4.0 to 15.0)."
    )
    higher = base_vs_instruct_messages("accuracy", 0.1, [0.04, 0.15], 1)
    assert english(higher[0]) == (
        "On the same settings (1 setting), the accuracy of Instruct is 10.0 points higher than that of Base"
        " (4.0 to 15.0)."
    )
    assert codes(base_vs_instruct_messages("kept", 0.0, [-1e-17, 1e-17], 1)) == ["kinds_not_told.kept"]


def test_intervals_message() -> None:
    drawn = bootstrap(study({"a": [[1, 0]]}), seed=0)
    assert english(intervals_message(drawn)) == "Intervals at 95% from 10,000 bootstrap draws over documents."
    counts = draw_from_counts(["x"], [[0.5]], [30], model="m", seed=0, n_draws=10)
    assert "no results of single documents" in english(intervals_message(counts))
    assert intervals_message(replace(drawn, source="counts")).code == "from_counts"
