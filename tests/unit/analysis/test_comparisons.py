"""Differences between methods and settings: by hand, with what is missing, and over several models."""

import json
from collections.abc import Mapping
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
from espalier.analysis.model_ranking import model_messages
from espalier.analysis.selection import rows_of, valid_rows
from espalier.messages.catalogue import Message
from espalier.naming import ratio_key
from espalier.reports.messages import Texts
from espalier.reports.sections.answers import differences_of_models
from espalier.reports.sections.cross import cross_headline, cross_overview, cross_sections
from espalier.reports.sections.introduction import headline, headline_statements, overview
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
    assert found["method", "y", "random"]["n_of_sides"] == [2, 1]
    assert found["method", "x", "y"]["n_of_sides"] is None
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
        "Method y is not shown to be better than the control random: what it keeps differs by +1.2 points ("
    )
    assert said["controls"][0].endswith("; experiments: 2 against 1).")
    assert said["controls"][1] == "Better than the control random (one run): x."
    texts = Texts()
    assert "y is not shown to be better than the control random" in headline(texts, analysis)
    found = overview(texts, analysis)
    assert any(line.startswith("Method x keeps") for line in found.supported)
    assert any(line.startswith("Method y is not shown") for line in found.open_questions)
    assert found.tables[0].rows[0][:2] == ["x", "68.8%"]


def test_a_method_below_the_control_comes_first() -> None:
    rows = [
        {"axis": "method", "first": "x", "second": "random", "tokens": None, "control": True, "n_settings": 1,
         "n_of_sides": None,
         "difference": difference, "interval": ends, "differs": True}
        for difference, ends in ((-0.2, [-0.3, -0.1]), (0.2, [0.1, 0.3]))
    ]  # fmt: skip
    messages = [english(one) for one in control_messages([rows[1], rows[0]], "kept")]
    assert messages == [
        "Method x is worse than the control random, which keeps 20.0 points more (10.0 to 30.0; 1 setting).",
        "Better than the control random (one run): x.",
    ]
    several = [dict(one, n_settings=4, n_of_sides=[4, 2], models=["A", "B"]) for one in rows]
    assert [english(one) for one in control_messages(several, "kept")] == [
        (
            "Method x is worse than the control random, which keeps 20.0 points more (10.0 to 30.0; "
            "experiments: 4 against 2)."
        ),
        "Better than the control random (2 runs of each model): x.",
    ]
    # A method without settings that is no control: the better side comes first, and so does its number.
    plain = dict(rows[0], control=False, second="magnitude", n_settings=4, n_of_sides=[4, 1])
    assert english(method_messages([plain], "kept")[0]) == (
        "Method magnitude keeps 20.0 points more than x (10.0 to 30.0; experiments: 1 against 4)."
    )


def test_all_pairs_that_are_not_told_apart_share_a_sentence() -> None:
    rows = [
        {"axis": "method", "first": first, "second": second, "tokens": None, "control": False, "n_settings": 4,
         "n_of_sides": None,
         "difference": difference, "interval": [difference - 0.1, difference + 0.1], "differs": abs(difference) > 0.1}
        for first, second, difference in (("a", "b", -0.2), ("a", "c", 0.05), ("b", "c", 0.01))
    ]  # fmt: skip
    assert [english(one) for one in method_messages(rows, "accuracy")] == [
        "Method b is 20.0 points more accurate than a (10.0 to 30.0; 4 settings).",
        "Methods not told apart: a and c, b and c.",
    ]
    turned = [dict(rows[0], difference=0.2)]
    assert [english(one) for one in turning_messages([(0.5, rows), (0.35, turned)])] == [
        "The order of a and b depends on the ratio: a is better at 35%, b at 50%."
    ]
    assert turning_messages([(0.5, rows), (0.35, rows)]) == []


def test_lengths_and_samples_whose_order_turns_have_a_sentence_of_their_own() -> None:
    def at(axis: str, first: str, second: str, difference: float) -> dict[str, Any]:
        return {"axis": axis, "first": first, "second": second, "control": False, "difference": difference,
                "differs": abs(difference) > 0.005}  # fmt: skip

    high = [at("taylor_seq_len", "64", "16", 0.016), at("taylor_num_samples", "128", "32", -0.01)]
    low = [at("taylor_seq_len", "64", "16", -0.01), at("taylor_num_samples", "128", "32", 0.02)]
    assert [english(one) for one in turning_messages([(0.5, high), (0.35, low)])] == [
        "The order of sequence lengths depends on the ratio: 64 tokens are better at 50%, 16 at 35%.",
        "The order of numbers of samples depends on the ratio: 128 are better at 35%, 32 at 50%.",
    ]
    open_low = [at("taylor_seq_len", "64", "16", -0.001)]
    assert turning_messages([(0.5, high), (0.35, open_low)]) == []
    over = [[one | {"models": names} for one in rows] for rows, names in ((high, ["A", "B"]), (low, ["A", "C"]))]
    assert turning_messages([(0.5, over[0]), (0.35, over[1])]) == []  # another order may come from other models
    same = [[one | {"models": ["A", "B"]} for one in rows] for rows in over]
    assert len(turning_messages([(0.5, same[0]), (0.35, same[1])])) == 2


def test_the_overview_has_the_settings_of_every_ratio() -> None:
    accuracy = {"x-1": 0.50, "x-2": 0.60, "x-p20-1": 0.70, "x-p20-2": 0.60, "baseline": 0.80}
    lengths = {"1": 16, "2": 64}
    rows = [
        row(name, acc, taylor_seq_len=lengths.get(name[-1]), pruning_ratio=0.2 if "p20" in name else 0.5)
        for name, acc in accuracy.items()
    ]
    analysis = analyse_model(table(*rows), "M", headline_ratio=None, evidence=evidence(names=accuracy))
    supported = overview(Texts(), analysis).supported
    assert supported[0].startswith("The order of sequence lengths depends on the ratio: 64 tokens are better at 50%")
    assert any(line.startswith("Pruning ratio 50%: Sequences of 64 tokens keep 12.5 points") for line in supported)
    assert any(line.startswith("Pruning ratio 20%: Sequences of 16 tokens keep 12.5 points") for line in supported)


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


def study_of_grids(grids: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Analyse models whose grids differ, from the accuracies of their experiments at 50%; `baseline` has 0.8."""
    frames, found = [], {}
    for seed, (model, accuracy) in enumerate(grids.items()):
        known = {**accuracy, "baseline": 0.8}
        random = {"criterion": "random", "taylor_seq_len": None, "taylor_num_samples": None}
        own = {name: random for name in known if name.startswith("random")}
        rows = [row(name, acc, model=model, family=model, **own.get(name, {})) for name, acc in known.items()]
        frames.append(table(*rows, row("x-p20", 0.7, model=model, family=model, pruning_ratio=0.2)))
        found[model] = evidence(0.001, seed, names={**known, "x-p20": 0.7})
    frame = pd.concat(frames, ignore_index=True)
    summary: dict[str, Any] = analyse_study(
        frame,
        analyses={name: analyse_model(frame, name, headline_ratio=0.5, evidence=one) for name, one in found.items()},
        draws={name: one.draws for name, one in found.items()},
    )
    return json.loads(json.dumps(summary, allow_nan=False))


def test_the_order_of_methods_in_the_grid_of_a_model_does_not_matter() -> None:
    """The difference x - y is 0.1 / 0.8 of A, and 0.3 / 0.8 of B, whose grid names y first."""
    summary = study_of_grids({"A": {"x-1": 0.5, "y-1": 0.4}, "B": {"y-1": 0.2, "x-1": 0.5}})
    found = differences(summary["comparisons"])
    assert list(found) == [("method", "x", "y")]
    assert found["method", "x", "y"]["difference"] == pytest.approx(0.2 / 0.8)
    assert found["method", "x", "y"]["models"] == ["A", "B"]
    (methods,) = differences_of_models(Texts(), summary["comparisons_of_models"])
    assert [line[0] for line in methods.rows] == ["x against y"]


def test_differences_of_each_model_are_shown_where_no_two_models_have_one_in_common() -> None:
    """A and B have x and y, and y and z, so they share the setting of y, but no difference."""
    summary = study_of_grids({"A": {"x-1": 0.5, "y-1": 0.4}, "B": {"y-1": 0.4, "z-1": 0.3}})
    assert summary["comparisons"]["differences"] == []
    text = cross_model_text(summary)
    section = text[text.index("7. Differences") : text.index("8. Models")]
    assert "no two methods" not in section
    assert "No two models have the same two methods or settings to compare." in section
    assert [line.split()[:3] for line in section.splitlines() if " against " in line] == [
        ["x", "against", "y"], ["y", "against", "z"],
    ]  # fmt: skip


def test_differences_that_not_all_models_have_name_theirs() -> None:
    """C has no y. D has no experiment at 50%, so it is none of the models there."""
    grids = {
        "A": {"x-1": 0.5, "y-1": 0.4, "random-1": 0.2}, "B": {"x-1": 0.5, "y-1": 0.4, "random-1": 0.2},
        "C": {"x-1": 0.5, "random-1": 0.2}, "D": {},
    }  # fmt: skip
    summary = study_of_grids(grids)
    compared = summary["comparisons"]
    assert compared["models"] == ["A", "B", "C"]
    assert summary["by_ratio"][ratio_key(0.2)]["comparisons"]["models"] == ["A", "B", "C", "D"]
    said = [english(from_json(one)) for kind in ("controls", "methods") for one in compared["statements"][kind]]
    assert said[0] == "Better than the control random (one run of each model): x, y [only A, B]."
    assert said[1].startswith("Method x keeps 12.5 points more than y (12.")
    assert said[1].endswith("; 1 setting [only A, B]).")
    text = cross_model_text(summary)
    assert "means of the accuracy kept over 3 models: x 62.5%, random (control) 25.0%." in text
    lines = [line.split() for line in text.splitlines() if line.startswith(("x against ", "y against "))]
    assert [line[-2:] for line in lines[:3]] == [["A,", "B"], ["B,", "C"], ["A,", "B"]]
    open_pairs = study_of_grids({name: dict.fromkeys(grid, 0.4) for name, grid in grids.items()})["comparisons"]
    assert [english(from_json(one)) for one in open_pairs["statements"]["methods"]] == [
        "Methods not told apart: x and y [only A, B]."
    ]


def ranked_study(known: Mapping[str, dict[str, float]], spread: float = 0.001) -> dict[str, Any]:
    """Compare models of which the accuracy of each experiment is known; names of experiments begin with the method."""
    frames, draws = [], {}
    for seed, (name, accuracy) in enumerate(known.items()):
        rows = [
            row(one, acc, model=name, family=name, taylor_seq_len=None if one == "baseline" else 16 * int(one[-1]))
            for one, acc in accuracy.items()
        ]
        frames.append(table(*rows))
        draws[name] = evidence(spread, seed, names=accuracy).draws
    summary: dict[str, Any] = analyse_study(pd.concat(frames, ignore_index=True), draws=draws)
    return json.loads(json.dumps(summary, allow_nan=False))


def test_models_are_ranked_by_what_they_keep_on_the_settings_that_all_have() -> None:
    """A keeps 0.5 and 0.7 of 0.8: 0.75. B keeps the same of 1.0: 0.6. C has x-1 and x-2 as B, and x-3, which is best.

    C's third setting does not count, so B and C are not told apart, though the best experiment of C keeps most of all.
    """
    two = {"x-1": 0.5, "x-2": 0.7}
    found = ranked_study(
        {"A": two | {"baseline": 0.8}, "B": two | {"baseline": 1.0}, "C": two | {"baseline": 1.0, "x-3": 0.99}}
    )
    ranking = found["comparisons"]["ranking"]
    assert (ranking["n_settings"], ranking["reason"]) == (2, None)
    assert [one["model"] for one in ranking["models"]] == ["A", "B", "C"]
    assert [one["mean"] for one in ranking["models"]] == pytest.approx([0.75, 0.6, 0.6])
    pairs = {(one["first"], one["second"]): one for one in ranking["differences"]}
    assert {pair: one["differs"] for pair, one in pairs.items()} == {
        ("A", "B"): True, ("A", "C"): True, ("B", "C"): False,
    }  # fmt: skip
    assert pairs["A", "B"]["difference"] == pytest.approx(0.15)
    # Simultaneous intervals are wider than those of each difference alone, of about 2 standard errors on each side.
    ends = {one["model"]: one["interval"] for one in ranking["models"]}
    alone = np.hypot(*(np.ptp(ends[name]) for name in ("A", "B")))
    assert np.ptp(pairs["A", "B"]["interval"]) > alone
    texts = Texts()
    shown = cross_overview(texts, found)
    line = next(one for one in shown.supported if "A keeps more than" in one)
    assert line.startswith("Pruning ratio 50%: A keeps more than B (by 15.0 points, 14.")
    assert line.endswith(", over the 2 settings that all models have.")
    assert "Pruning ratio 50%: Models whose accuracy kept is not told apart: B and C." in shown.open_questions
    assert "A keeps more than B, C." in cross_headline(texts, found)
    section = next(one for one in cross_sections(texts, found) if one.title == texts("x.ranking"))
    assert section.tables[0].rows[0][0] == "A"
    assert section.tables[0].rows[0][3] == "B, C"
    assert [line[0] for line in section.tables[1].rows] == ["A against B", "A against C", "B against C"]
    # The table of best experiments is ordered by these: C, A, B.
    assert [line[0] for line in cross_sections(texts, found)[0].tables[0].rows] == ["C", "A", "B"]
    assert "各模型保留的 ACC" in cross_model_text(found, "zh")


def test_models_without_common_settings_or_of_equal_value_are_not_ranked_in_sentences() -> None:
    alike = {"x-1": 0.5, "x-2": 0.7, "baseline": 0.8}
    found = ranked_study({"A": alike, "B": alike}, spread=0.01)
    line = "No two models are told apart by what they keep, over the 2 settings that all have."
    assert f"Pruning ratio 50%: {line}" in cross_overview(Texts(), found).open_questions
    assert line in cross_headline(Texts(), found)
    assert "keeps more than" not in cross_model_text(found)
    other = ranked_study({"A": {"x-1": 0.5, "baseline": 0.8}, "B": {"y-1": 0.5, "baseline": 0.8}})
    assert other["comparisons"]["reason"] == "the models have no two methods or settings in common"
    assert other["comparisons"]["ranking"]["models"] == []
    partly = {"x-1": 0.5, "y-1": 0.6, "baseline": 0.8}
    third = ranked_study({"A": partly, "B": partly, "C": {"z-1": 0.5, "baseline": 0.8}})
    assert third["comparisons"]["ranking"]["reason"] == "no setting has a valid experiment in all models"
    assert "Models are not compared with each other: no setting has a valid" in cross_model_text(third)
    without = ranked_study({"A": {"x-1": 0.5, "x-2": 0.7}, "B": {"x-1": 0.3, "x-2": 0.5}})
    assert without["comparisons"]["measure"] == "accuracy"
    assert "A is more accurate than B (by 20.0 points" in cross_model_text(without)


def test_many_pairs_of_models_are_counted() -> None:
    def ranking(n: int) -> dict[str, Any]:
        pairs = [
            {"first": "A", "second": f"B{one}", "differs": one == 0, "difference": 0.1, "interval": [0.05, 0.15]}
            for one in range(n + 1)
        ]
        return {"n_settings": 1, "models": [{"model": "A"}], "differences": pairs}

    few, many = (Texts().message(to_json(model_messages(ranking(n), "kept")[-1])) for n in (6, 7))
    assert few.startswith("Models whose accuracy kept is not told apart: A and B1, A and B2, ")
    assert many == "7 of 8 pairs of models are not told apart by what they keep."
    (first, _) = model_messages(ranking(6), "kept")
    assert Texts().message(to_json(first)) == (
        "A keeps more than B0 (by 10.0 points, 5.0 to 15.0), over the 1 setting that all models have."
    )


def statement(code: str, **values: Any) -> dict[str, Any]:
    return to_json(Message(code, values | {"points": 1.0, "low": 0.5, "high": 1.5, "settings": "4 settings"}))


def test_the_headline_has_the_nearest_methods_and_the_largest_difference_of_each_axis() -> None:
    def better(code: str, first: str, second: str) -> dict[str, Any]:
        return statement(f"{code}_better.kept", first=first, second=second)

    means = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "r": 0.95}
    compared: dict[str, Any] = {
        "kept": {name: {"mean": mean, "control": name == "r"} for name, mean in means.items()},
        "statements": {
            "controls": [
                better("control", "r", "d"), statement("better_than_control", methods=["a"], control="r", runs="1"),
            ],
            "methods": [better("method", "a", "d"), better("method", "b", "d"), better("method", "a", "c"),
                        better("method", "a", "b")],
            "settings": [better("length", "64", "16"), better("length", "64", "32"), better("samples", "128", "8")],
        },
    }  # fmt: skip
    found = [(one["code"].split(".")[0], one["values"]["second"]) for one in headline_statements(compared)]
    assert found == [
        ("control_better", "d"), ("method_better", "b"), ("method_better", "c"), ("length_better", "16"),
        ("samples_better", "8"),
    ]  # fmt: skip
    compared["statements"] = {"methods": [to_json(Message("method_open", {"pairs": ["a and b"]}))], "settings": []}
    assert [one["code"] for one in headline_statements(compared)] == ["method_open"]


def test_settings_of_each_model_and_the_models_of_opposite_order() -> None:
    """64 tokens are better in A and B by 0.1 / 0.8, and worse in C by 0.05 / 0.8; x is better than y in A alone."""
    known = {"A": (0.50, 0.60), "B": (0.50, 0.60), "C": (0.55, 0.50)}
    frames, draws, analyses = [], {}, {}
    for seed, (name, (short, long)) in enumerate(known.items()):
        accuracy = {"x-1": short, "x-2": long, "baseline": 0.8}
        frames.append(
            table(*(row(one, acc, model=name, family=name, taylor_seq_len={"1": 16, "2": 64}.get(one[-1]))
                    for one, acc in accuracy.items()))
        )  # fmt: skip
        found = evidence(0.002, seed, names=accuracy)
        draws[name] = found.draws
        analyses[name] = analyse_model(frames[-1], name, headline_ratio=None, evidence=found, n_models=3)
    summary = analyse_study(pd.concat(frames, ignore_index=True), analyses=analyses, draws=draws)
    texts = Texts()
    (settings,) = differences_of_models(texts, summary["comparisons_of_models"])  # there is one method
    assert list(settings.header) == ["Compared", "A", "B", "C"]
    assert [cell.split()[0] for cell in settings.rows[0][1:]] == ["+12.5", "+12.5", "-6.2"]
    assert settings.rows[0][0] == "Sequence length 64 against 16"
    line = "Sequence length 64 against 16: the order over all models is opposite in C."
    assert f"Pruning ratio 50%: {line}" in cross_overview(texts, summary).supported
    for one in summary["comparisons_of_models"]["C"]["differences"]:
        one["differs"] = False
    assert not any("opposite" in text for text in cross_overview(texts, summary).supported)


def test_the_noise_caveat_is_printed_at_every_ratio() -> None:
    """At 20% the best keeps 0.81 / 0.8, a gain of 0.01 with a standard deviation of about 0.014."""
    accuracy = {"x-1": 0.50, "y-1": 0.40, "x-p20-1": 0.81, "y-p20-1": 0.60, "baseline": 0.80}
    rows = [row(name, acc, pruning_ratio=0.2 if "p20" in name else 0.5) for name, acc in accuracy.items()]
    caveat = "A pruned model above the unpruned one is within the noise here"
    shown = {}
    for spread in (0.01, 0.0001):
        known = evidence(spread, names=accuracy)
        analysis = analyse_model(table(*rows), "M", headline_ratio=None, evidence=known)
        shown[spread] = model_text(analysis)
    assert shown[0.01].count(caveat) == 1
    assert caveat not in shown[0.0001]  # the gain is shown
    assert caveat not in shown[0.01].split("\nPruning ratio 20%\n")[0]


def test_base_and_instruct_are_compared_by_what_they_keep_at_every_ratio() -> None:
    """The unpruned Instruct model is worse by as much as its pruned models, so both keep 75% at 50%."""
    frames, draws = [], {}
    known = {"A": ("base", [0.8, 0.6, 0.72]), "AI": ("instruct", [0.4, 0.3, 0.24])}
    for seed, (name, (kind, accuracies)) in enumerate(known.items()):
        accuracy = dict(zip(("baseline", "x-1", "x-p20-1"), accuracies, strict=True))
        frames.append(
            table(*(row(one, acc, model=name, kind=kind, pruning_ratio=0.2 if "p20" in one else 0.5)
                    for one, acc in accuracy.items()))
        )  # fmt: skip
        draws[name] = evidence(0.001, seed, names=accuracy).draws
    summary = analyse_study(pd.concat(frames, ignore_index=True), draws=draws)
    found = summary["base_vs_instruct"][0]["common_settings"]
    assert found["difference"] == pytest.approx(-0.3)  # of the accuracy, as before
    assert (found["measure"], found["simultaneous_difference"]) == ("kept", pytest.approx(0))
    shown = cross_overview(Texts(), summary)
    # At 20%: 0.24 / 0.4 - 0.72 / 0.8 = -0.3.
    assert any(
        line.startswith("Pruning ratio 20%: F: On the same settings (1 setting), Instruct keeps 30.0 points less")
        for line in shown.supported
    )
    assert any(
        line.startswith("Pruning ratio 50%: F: On the same settings (1 setting), what Instruct and Base keep is not")
        for line in shown.open_questions
    )


def test_the_headline_of_a_model_begins_with_what_its_best_experiment_keeps() -> None:
    texts = Texts()
    known = analyse_model(experiments(), "M", headline_ratio=None, evidence=evidence())
    low, high = (100 * end for end in known["uncertainty"]["experiments"]["x-2"]["acc_kept_interval"])
    assert headline(texts, known).startswith(
        f"Pruning ratio 50%: x-2 keeps most: 75.0% (95% interval {low:.1f}% to {high:.1f}%) of the accuracy "
        "of the unpruned model (accuracy 0.6000 of 0.8000). "
    )
    without = analyse_model(experiments(), "M", headline_ratio=None)
    assert "x-2 keeps most: 75.0% of the accuracy of" in headline(texts, without)
    frame = experiments()
    alone = analyse_model(frame[frame["experiment"] != "baseline"], "M", headline_ratio=None)
    assert headline(texts, alone).startswith(
        "Pruning ratio 50%: x-2 has the highest accuracy, 0.6000; the unpruned model has no result."
    )


def test_one_model_and_different_documents_say_why_nothing_is_compared() -> None:
    alone, _, _ = study(1)
    assert alone["comparisons"]["reason"] == "the study has one model"
    assert "random" in cross_model_text(alone)
    texts = Texts()
    found = cross_overview(texts, alone)
    assert any("Method x keeps 11.2 points more than y (" in line for line in found.supported)
    assert any("Method y is not shown to be better" in line for line in found.open_questions)
    assert "No difference is shown" not in cross_model_text(alone)
    assert "Method x keeps 11.2 points more than y (" in cross_headline(texts, alone)
    frames = pd.concat([experiments(), experiments(model="N")])
    other = evidence().draws
    assert other is not None
    draws = {"M": other, "N": Bootstrap(other.experiments, other.accuracy, other.draws, "documents", "other")}
    summary = analyse_study(frames, draws=draws)
    assert summary["comparisons"]["reason"] == "the models answered different documents"
    assert "the models answered different documents" in cross_model_text(summary)
    analyses = {
        name: analyse_model(frames[frames["model"] == name], name, headline_ratio=None, evidence=evidence())
        for name in draws
    }
    of_each = cross_overview(texts, analyse_study(frames, analyses=analyses, draws=draws)).supported
    assert sum("Method x keeps 11.2 points more than y (" in line for line in of_each) == 2
    assert any(line.startswith("Pruning ratio 50%: N: Method x") for line in of_each)
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
