"""Statements about results."""

from dataclasses import replace

import numpy as np
import pytest

from espalier.messages.catalogue import Message, catalogue, render_message
from espalier.statistics.bootstrap import bootstrap
from espalier.statistics.comparison import PairedDraws, base_vs_instruct
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
from espalier.statistics.variance import decompose
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
    some = confidence_set_messages(confidence([True, True, False], [True, True, True]), ["a", "b", "c"], "a-1")
    assert codes(some) == ["set_some", "set_simultaneous", "method_in_set", "method_in_set", "method_not_in_set"]
    assert english(some[0]) == "2 of 3 experiments cannot be told from the best (a-1) at 95%."
    assert english(some[-1]) == "c can be told from the best: none of its 1 experiments is in the set."
    alone = confidence_set_messages(confidence([True, False]), ["a", "b"], "a-1")
    assert codes(alone) == ["set_alone", "method_not_in_set"]
    assert english(alone[0]) == "Only a-1 is in the set: every other one (1) can be told from the best at 95%."
    assert codes(confidence_set_messages(confidence([True, True]), ["a", "b"], "a-1")) == [
        "set_all",
        "every_method_in_set",
    ]
    assert codes(confidence_set_messages(confidence([True, True]), ["a", "a"], "a-1")) == ["set_all", "one_method"]
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


def test_correlation_messages() -> None:
    opposite = grouped_correlation([1, 2, 3, 11, 12, 13], [5, 6, 7, 1, 2, 3], ["m", "m", "m", "n", "n", "n"])
    messages = correlation_messages("ppl", opposite)
    assert codes(messages) == ["correlation_strong", "correlation_sign_differs"]
    assert english(messages[0]) == "ppl: strong linear relation within methods (mean r 1.00 over 2 methods)."
    mixed = grouped_correlation([1, 2, 3, 1, 2, 3], [1, 2, 3, 3, 2, 1.5], ["m", "m", "m", "n", "n", "n"])
    assert "correlation_mixed" in codes(correlation_messages("ppl", mixed))
    undefined = correlation_messages("ppl", grouped_correlation([1, 2], [1, 2], ["m", "m"], x_name="ppl"))
    assert english(undefined[0]) == "ppl: no correlation within methods: only 2 of at least 3 experiments."


def test_axes_messages() -> None:
    axes = {"method": ["x", "x", "y", "y"], "taylor_seq_len": [16, 64, 16, 64]}
    found = decompose([0.1, 0.2, 0.3, 0.4], axes)
    messages = axes_messages(found, None)
    assert english(messages[0]) == "method explains the largest share of the spread: 80%, evaluation noise subtracted."
    crossed = axes_messages(decompose([0.1, 0.2, 0.2, 0.1], axes), seed_errors([0.1] * 4, axes, [0] * 4))
    assert codes(crossed) == ["axis_none", "axis_interaction", "one_seed_only"]
    noise = axes_messages(decompose([0.1, 0.2, 0.3, 0.4], axes, np.eye(4)), None)
    assert codes(noise) == ["axis_none", "axis_noise"]
    assert codes(axes_messages(decompose([0.5] * 4, axes), None)) == ["axis_none"]
    by_seed = {name: values * 2 for name, values in axes.items()}
    accuracy = [0.1, 0.2, 0.9, 1.0, 0.1, 0.3, 0.9, 1.0]
    seeds = seed_errors(accuracy, by_seed, [0] * 4 + [1] * 4)
    messages = axes_messages(decompose(accuracy, by_seed), seeds)
    assert codes(messages)[-2:] == ["axis_beyond_seeds", "axis_within_seeds"]


def test_base_vs_instruct_messages() -> None:
    draws = PairedDraws(np.zeros((100, 1)), np.full((100, 1), 0.1))
    assert codes(base_vs_instruct_messages(base_vs_instruct("s", [0.5], "s", [0.6], draws))) == ["kinds_differ"]
    equal = PairedDraws(np.zeros((100, 1)), np.zeros((100, 1)) + 1e-17)
    assert codes(base_vs_instruct_messages(base_vs_instruct("s", [0.5], "s", [0.5], equal))) == ["kinds_not_told"]
    assert codes(base_vs_instruct_messages(base_vs_instruct("s", [0.5], "t", [0.5]))) == ["kinds_undefined"]
    assert base_vs_instruct_messages(base_vs_instruct("s", [0.5], "s", [0.6])) == []


def test_intervals_message() -> None:
    drawn = bootstrap(study({"a": [[1, 0]]}), seed=0)
    assert english(intervals_message(drawn)) == "Intervals at 95% from 10,000 bootstrap draws over documents."
    counts = draw_from_counts(["x"], [[0.5]], [30], model="m", seed=0, n_draws=10)
    assert "no results of single documents" in english(intervals_message(counts))
    assert intervals_message(replace(drawn, source="counts")).code == "from_counts"
