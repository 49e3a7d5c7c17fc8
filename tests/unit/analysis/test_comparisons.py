"""Differences between methods and settings: by hand, with what is missing, and over several models."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from espalier.analysis.analysed_experiments import analysed_experiments
from espalier.analysis.answers import control_messages, method_messages, turning_messages
from espalier.analysis.comparisons import compare_within_model
from espalier.analysis.contrasts import contrasts_of, values_of
from espalier.analysis.cross_model import analyse_study
from espalier.analysis.evidence import Evidence
from espalier.analysis.message_json import english, from_json, to_json
from espalier.analysis.model import analyse_model
from espalier.analysis.selection import rows_of, valid_rows
from espalier.messages.catalogue import Message
from espalier.reports.messages import Texts
from espalier.reports.sections.cross import cross_headline, cross_overview
from espalier.reports.sections.introduction import headline, overview
from espalier.reports.text import cross_model_text, model_text
from espalier.statistics.bootstrap import Bootstrap
from tests.unit.analysis.test_analysis import row, table

ACCURACY = {
    "x-1": 0.50, "x-2": 0.60, "y-1": 0.40, "y-2": 0.52, "random-1": 0.45, "baseline": 0.80,
}  # fmt: skip
SETTINGS = {"1": (16, 32), "2": (64, 8)}  # 512 tokens each


def experiments(**changes: Any) -> pd.DataFrame:
    rows = []
    for name, acc in ACCURACY.items():
        length, count = SETTINGS.get(name[-1], (None, None))
        own: dict[str, Any] = {"taylor_seq_len": length, "taylor_num_samples": count}
        if name == "random-1":
            own = {"taylor_seq_len": None, "taylor_num_samples": None, "calibration": None, "criterion": "random"}
        rows.append(row(name, acc, **own | changes))
    return table(*rows)


def evidence(spread: float = 0.01, seed: int = 0, *, names: dict[str, float] | None = None) -> Evidence:
    known = ACCURACY if names is None else names
    accuracy = np.array(list(known.values()))
    draws = accuracy + np.random.default_rng(seed).normal(0, spread, (4_000, len(accuracy)))
    return Evidence(Bootstrap(tuple(known), accuracy, draws, "documents", "o"), None, {}, None)


def differences(content: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(one["axis"], one["first"], one["second"]): one for one in content["differences"]}


def test_differences_by_hand() -> None:
    (content,) = compare_within_model(rows_of(experiments(), "M"), evidence(), level=0.95).values()
    assert content["measure"] == "kept"
    found = differences(content)
    # x - y on both settings: ((0.50 - 0.40) + (0.60 - 0.52)) / 2 / 0.8
    assert found["method", "x", "y"]["difference"] == pytest.approx(0.09 / 0.8)
    assert found["method", "x", "y"]["n_settings"] == 2
    # The control has no settings, so it is compared with the mean over all settings.
    assert found["method", "y", "random"]["difference"] == pytest.approx(0.01 / 0.8)
    assert found["method", "y", "random"]["control"] is True
    # At 512 tokens: ((0.60 - 0.50) + (0.52 - 0.40)) / 2 / 0.8; no pair of settings differs in one axis alone.
    assert found["tokens", "64", "16"]["difference"] == pytest.approx(0.11 / 0.8)
    assert found["tokens", "64", "16"]["tokens"] == 512
    assert {axis for axis, _, _ in found} == {"method", "tokens"}
    assert content["kept"]["x"]["mean"] == pytest.approx(0.55 / 0.8)
    assert content["kept"]["random"]["control"] is True


def test_an_axis_is_compared_over_the_settings_that_have_both_values() -> None:
    settings = {"x-1": (16, 8), "x-2": (64, 8), "x-3": (16, 32), "y-1": (64, 8)}
    rows = [row(name, 0.5, taylor_seq_len=one[0], taylor_num_samples=one[1]) for name, one in settings.items()]
    found = {one.key: one for one in contrasts_of(valid_rows(rows_of(table(*rows), "M").experiments))}
    length = found["taylor_seq_len", "64", "16", None]
    assert (length.n, length.weights) == (1, {"x-2": 1.0, "x-1": -1.0})
    samples = found["taylor_num_samples", "32", "8", None]
    assert samples.weights == {"x-3": 1.0, "x-1": -1.0}
    assert found["method", "x", "y", None].weights == {"x-2": 1.0, "y-1": -1.0}


def test_methods_without_a_common_setting_are_not_compared() -> None:
    rows = [row("x-1", 0.5, taylor_seq_len=16), row("y-1", 0.4, taylor_seq_len=64)]
    assert contrasts_of(valid_rows(rows_of(table(*rows), "M").experiments)) == []


def test_accuracies_are_compared_where_the_unpruned_model_has_no_result() -> None:
    known = {name: acc for name, acc in ACCURACY.items() if name != "baseline"}
    draws = evidence(names=known).draws
    assert draws is not None
    assert values_of(draws).measure == "accuracy"
    frame = experiments()[lambda rows: rows["experiment"] != "baseline"]
    analysis = analyse_model(frame, "M", headline_ratio=None, evidence=evidence(names=known))
    assert differences(analysis["comparisons"])["method", "x", "y"]["difference"] == pytest.approx(0.09)
    assert "Method x is 9.0 points more accurate than y (" in model_text(analysis)


def test_without_draws_nothing_is_compared_and_it_says_why() -> None:
    analysis = analyse_model(experiments(), "M", headline_ratio=None)
    assert analysis["comparisons"]["differences"] == []
    assert "Methods and settings are not compared: neither results of single documents" in model_text(analysis)


def test_sentences_of_methods_and_controls() -> None:
    analysis = analyse_model(experiments(), "M", headline_ratio=None, evidence=evidence())
    said = {kind: [one["text"] for one in found] for kind, found in analysis["comparisons"]["statements"].items()}
    assert said["methods"][0].startswith("Method x keeps 11.2 points more than y (")
    assert said["methods"][0].endswith("; 2 settings).")
    # y keeps 57.5%, the control 56.25%: not better.
    assert said["controls"][0].startswith(
        "Method y is not shown to be better than random pruning: against random it keeps +1.2"
    )
    assert said["controls"][1] == "Better than random pruning (random): x."
    texts = Texts()
    assert "y is not shown to be better than random pruning" in headline(texts, analysis)
    found = overview(texts, analysis)
    assert any(line.startswith("Method x keeps") for line in found.supported)
    assert any(line.startswith("Method y is not shown") for line in found.open_questions)
    assert found.tables[0].rows[0][:2] == ["x", "68.8%"]


def test_a_method_below_the_control_comes_first() -> None:
    rows = [
        {"axis": "method", "first": "x", "second": "random", "tokens": None, "control": True, "n_settings": 1,
         "difference": difference, "interval": ends, "differs": True}
        for difference, ends in ((-0.2, [-0.3, -0.1]), (0.2, [0.1, 0.3]))
    ]  # fmt: skip
    messages = [english(one) for one in control_messages([rows[1], rows[0]], "kept")]
    assert messages == [
        "Method x is worse than random pruning: random keeps 20.0 points more (10.0 to 30.0; 1 setting).",
        "Better than random pruning (random): x.",
    ]


def test_all_pairs_that_are_not_told_apart_share_a_sentence() -> None:
    rows = [
        {"axis": "method", "first": first, "second": second, "tokens": None, "control": False, "n_settings": 4,
         "difference": difference, "interval": [difference - 0.1, difference + 0.1], "differs": abs(difference) > 0.1}
        for first, second, difference in (("a", "b", -0.2), ("a", "c", 0.05), ("b", "c", 0.01))
    ]  # fmt: skip
    assert [english(one) for one in method_messages(rows, "accuracy")] == [
        "Method b is 20.0 points more accurate than a (10.0 to 30.0; 4 settings).",
        "Methods not told apart: a and c, b and c.",
    ]
    turned = [dict(rows[0], difference=0.2)]
    assert [english(one) for one in turning_messages([(0.5, rows), (0.35, turned)])] == [
        "The order of a and b turns with the ratio: a is better at 35%, b at 50%."
    ]
    assert turning_messages([(0.5, rows), (0.35, rows)]) == []


def test_lists_among_the_values_survive_json_and_are_joined_in_each_language() -> None:
    message = Message("method_open", {"pairs": [Message("pair", {"first": "a", "second": "b"}), "c"]})
    assert from_json(json.loads(json.dumps(to_json(message)))) == message
    assert Texts("zh").message(to_json(message)) == "无法区分的方法: a 与 b、c。"


def study(n_models: int = 3, **changes: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]], pd.DataFrame]:
    kinds = [("A", "F", "base"), ("AI", "F", "instruct"), ("B", "G", "base"), ("C", "G", "base")][:n_models]
    frames, draws, analyses = [], {}, {}
    for number, (name, family, kind) in enumerate(kinds):
        frames.append(experiments(model=name, family=family, kind=kind, **changes))
        found = evidence(seed=number)
        draws[name] = found.draws
        analyses[name] = analyse_model(frames[-1], name, headline_ratio=None, evidence=found, n_models=n_models)
    frame = pd.concat(frames, ignore_index=True)
    summary: dict[str, Any] = analyse_study(frame, analyses=analyses, draws=draws)
    return json.loads(json.dumps(summary, allow_nan=False)), analyses, frame


def test_models_are_compared_together_by_kind_and_by_family() -> None:
    summary, analyses, _ = study()
    compared = summary["comparisons"]
    assert differences(compared)["method", "x", "y"]["difference"] == pytest.approx(0.09 / 0.8)
    assert [(one["by"], one["value"], one["models"]) for one in compared["groups"]] == [
        ("kind", "base", ["A", "B"]), ("family", "F", ["A", "AI"]),
    ]  # fmt: skip
    # The mean of three independent models is told apart better than each of them.
    own = differences(analyses["A"]["comparisons"])["method", "x", "y"]
    together = differences(compared)["method", "x", "y"]
    assert np.ptp(together["interval"]) < np.ptp(own["interval"])
    assert list(compared["base_vs_instruct"]) == ["F"]
    assert compared["base_vs_instruct"]["F"]["differs"] is False
    assert "not told apart" in summary["base_vs_instruct"][0]["common_settings"]["statements"][0]["text"]
    texts = Texts()
    assert cross_headline(texts, summary).startswith(
        "Pruning ratio 50%: means of the accuracy kept over 3 models: x 68.8%, y 57.5%, random (control) 56.2%."
    )
    matrix = cross_overview(texts, summary).tables[0]
    assert [line[0] for line in matrix.rows] == ["A", "AI", "B", "All models"]
    assert matrix.rows[0][1].startswith("68.8% (")
    for language in ("en", "zh"):
        cross_model_text(summary, language)


def test_one_model_and_different_documents_say_why_nothing_is_compared() -> None:
    alone, _, _ = study(1)
    assert alone["comparisons"]["reason"] == "the study has one model"
    assert "random" in cross_model_text(alone)
    frames = pd.concat([experiments(), experiments(model="N")])
    other = evidence().draws
    assert other is not None
    draws = {"M": other, "N": Bootstrap(other.experiments, other.accuracy, other.draws, "documents", "other")}
    summary = analyse_study(frames, draws=draws)
    assert summary["comparisons"]["reason"] == "the models answered different documents"
    assert "the models answered different documents" in cross_model_text(summary)
    assert analyse_study(frames)["comparisons"]["reason"] == "fewer than two models have intervals"


def test_analysed_experiments_have_intervals_sets_and_what_is_kept() -> None:
    _, analyses, frame = study(2)
    found = analysed_experiments(frame, analyses).set_index(["model", "experiment"])
    best = found.loc[("A", "x-2")]
    assert best.acc_kept == pytest.approx(0.75)
    assert best.acc_mean_low < 0.6 < best.acc_mean_high
    assert best.acc_kept_low < 0.75 < best.acc_kept_high
    assert (best.in_set, best.in_simultaneous_set) == (True, True)
    assert not found.loc[("A", "y-1")].in_simultaneous_set
    assert pd.isna(found.loc[("A", "random-1")].in_set)
    assert found.loc[("AI", "baseline")].acc_kept == 1
    assert found.kv_cache_bytes_per_token.isna().all()
    assert list(found.reset_index()[list(frame)]) == list(frame)
