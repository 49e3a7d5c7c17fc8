"""Analyses of small tables, with expected values worked out by hand."""

import dataclasses
import json
import math
from typing import Any

import pandas as pd
import pytest

from espalier.analysis.base_vs_instruct import compare_base_and_instruct
from espalier.analysis.best_configs import best_configs_table, cross_model_comparison
from espalier.analysis.cross_model import analyse_study, protocols_of, skipped_of
from espalier.analysis.model import analyse_model, correlation_with_accuracy
from espalier.analysis.selection import global_best_config, method_comparison, rows_of
from espalier.errors import UserError
from espalier.naming import ratio_key
from espalier.reports.html import cross_model_html
from espalier.reports.text import cross_model_text
from espalier.tables import Experiments

WHOLE = ("taylor_seq_len", "taylor_num_samples", "n_params", "extreme_pruning_layers")
TEXT = ("method", "criterion", "calibration")


def row(experiment: str, acc: float | None, **changes: Any) -> dict[str, Any]:
    """Return a row of the experiments table; the accuracy of both tasks is the mean accuracy."""
    pruned = experiment != "baseline"
    values = {
        "study": "s", "model": "M", "family": "F", "kind": "base", "experiment": experiment,
        "method": experiment.split("-", maxsplit=1)[0] if pruned else None, "criterion": "taylor" if pruned else None,
        "taylor_seq_len": 16 if pruned else None, "taylor_num_samples": 32 if pruned else None,
        "calibration": "c-s0" if pruned else None, "pruning_ratio": 0.5 if pruned else 0.0,
        "removed_param_fraction": 0.499 if pruned else 0.0, "n_params": 100, "acc_mean": acc, "acc_mean_rule": "acc",
        "ppl_text": 10.0, "acc_a": acc, "acc_b": acc, "grad_norm_ratio": 2.0 if pruned else None,
        "extreme_pruning_layers": 1 if pruned else None, "status": "ok", "source": "run",
    }  # fmt: skip
    return values | changes


def missing(experiment: str, status: str = "missing", **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            "removed_param_fraction",
            "n_params",
            "ppl_text",
            "acc_a",
            "acc_b",
            "grad_norm_ratio",
            "extreme_pruning_layers",
        )
    )
    return row(experiment, None, **nothing, status=status, **changes)


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows))
    numbers = [c for c in frame if c.startswith(("ppl_", "grad_", "acc_")) and c != "acc_mean_rule"]
    types = dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(TEXT, "str") | dict.fromkeys(numbers, "float64")
    return Experiments.validate(frame.astype(types | {"removed_param_fraction": "float64"}))


def analyse(*rows: dict[str, Any], headline_ratio: float | None = None) -> dict[str, Any]:
    analysis = analyse_model(table(*rows), "M", headline_ratio=headline_ratio)
    json.dumps(analysis, allow_nan=False)  # raises if a value is NaN
    return analysis


def r_n_and_reason(correlation: dict[str, Any]) -> tuple[float | None, int, str | None]:
    return correlation["r"], correlation["n"], correlation["reason"]


def test_methods_by_hand() -> None:
    # x: mean (0.4 + 0.6) / 2 = 0.5, population deviation 0.1; y: mean 0.55, deviation 0.01, best by mean.
    analysis = analyse(row("x-1", 0.4), row("x-2", 0.6), row("y-1", 0.54), row("y-2", 0.56))
    x = analysis["methods"]["x"]
    assert x == {
        "mean": pytest.approx(0.5),
        "std": pytest.approx(0.1),
        "min": 0.4,
        "max": 0.6,
        "removed_param_fraction": {"min": 0.499, "max": 0.499},
        "n": 2,
        "control": False,
    }
    assert analysis["methods"]["y"]["std"] == pytest.approx(0.01)
    assert analysis["best_by_mean"] == "y"
    assert analysis["best"]["method"] == "x"  # of the single best experiment


def test_calibration_axes_by_hand() -> None:
    analysis = analyse(
        row("x-1", 0.4, taylor_seq_len=16, taylor_num_samples=8),
        row("x-2", 0.6, taylor_seq_len=16, taylor_num_samples=32),
        row("x-3", 0.7, taylor_seq_len=128, taylor_num_samples=32),
        row("magnitude-1", 0.1, taylor_seq_len=None, taylor_num_samples=None),  # has no such axes
    )
    assert analysis["taylor_seq_len"] == {
        "16": {"mean": pytest.approx(0.5), "std": pytest.approx(0.1), "n": 2},
        "128": {"mean": 0.7, "std": 0.0, "n": 1},
    }
    assert list(analysis["taylor_num_samples"]) == ["8", "32"]
    assert analysis["taylor_num_samples"]["32"]["mean"] == pytest.approx(0.65)


def test_correlations_by_hand() -> None:
    # x = 1, 2, 3 and y = 0.2, 0.4, 0.3: deviations (-1, 0, 1) and (-0.1, 0.1, 0);
    # r = 0.1 / sqrt(2 * 0.02) = 0.5. Perplexity is 40 - 100 y, so r = -1. Extreme layers 3, 1, 2: r = -1.
    analysis = analyse(
        row("x-1", 0.2, grad_norm_ratio=1.0, ppl_text=20.0, extreme_pruning_layers=3),
        row("x-2", 0.4, grad_norm_ratio=2.0, ppl_text=0.1, extreme_pruning_layers=1),
        row("x-3", 0.3, grad_norm_ratio=3.0, ppl_text=10.05, extreme_pruning_layers=2),
    )
    assert r_n_and_reason(analysis["gradient_correlations"]["grad_norm_ratio"]) == (pytest.approx(0.5), 3, None)
    assert r_n_and_reason(analysis["ppl_accuracy"]) == (pytest.approx(-1), 3, None)
    assert analysis["ppl_accuracy"]["text"] == "text"
    assert analysis["ppl_accuracy"]["within"]["mean"] == pytest.approx(-1)  # of the only method
    assert analysis["extreme_layers"]["r"] == pytest.approx(-1)
    assert analysis["extreme_layers"]["groups"] == {
        "1": {"mean": 0.4, "n": 1}, "2": {"mean": 0.3, "n": 1}, "3": {"mean": 0.2, "n": 1}
    }  # fmt: skip


def test_correlation_with_a_missing_column_has_a_reason() -> None:
    frame = pd.DataFrame({"acc_mean": [1.0, 2.0, 3.0], "method": "m"})
    assert r_n_and_reason(correlation_with_accuracy(frame, "absent")) == (None, 0, "no experiment has absent")


def test_ties_go_to_the_lower_perplexity_then_to_the_name() -> None:
    rows = [row("x-b", 0.5, ppl_text=9.0), row("x-a", 0.5, ppl_text=10.0), row("y-a", 0.5, ppl_text=9.0)]
    assert analyse(*rows)["best"]["experiment"] == "x-b"
    assert analyse(*rows[::-1])["best"]["experiment"] == "x-b"
    assert analyse(*rows)["best_by_mean"] == "x"
    unknown = [row("x-a", 0.5, ppl_text=None), row("x-b", 0.5, ppl_text=1e6)]
    assert analyse(*unknown)["best"]["experiment"] == "x-b"


def test_controls_never_win() -> None:
    control = row(
        "random-1", 0.9, criterion="random", taylor_seq_len=None, taylor_num_samples=None, grad_norm_ratio=None
    )
    analysis = analyse(row("x-1", 0.5), control)
    assert analysis["methods"]["random"]["control"]
    assert analysis["methods"]["random"]["mean"] == 0.9
    assert analysis["best"]["method"] == analysis["best_by_mean"] == "x"
    assert analysis["experiments"] == {"total": 2, "valid": 2, "invalid": 0, "reasons": {}, "controls": 1, "codes": {}}
    assert analysis["extreme_layers"]["groups"] == {"1": {"mean": 0.5, "n": 1}}
    alone = analyse(control)
    assert alone["best"] is None
    assert alone["best_by_mean"] is None


def test_two_ratios_never_mix() -> None:
    rows = [
        row("baseline", 0.8, ppl_text=5.0),
        *(row(f"x-{n}-p20", 0.6 + n / 100, pruning_ratio=0.2) for n in range(3)),
        *(row(f"x-{n}-p12_5", 0.7 + n / 100, pruning_ratio=0.125) for n in range(2)),
    ]
    analysis = analyse(*rows)
    assert list(analysis["by_ratio"]) == ["12_5", "20"]
    assert analysis["headline_ratio"] == analysis["pruning_ratio"] == 0.2  # the largest
    assert analysis["best"]["experiment"] == "x-2-p20"
    assert analysis["by_ratio"]["20"] == {key: analysis[key] for key in analysis["by_ratio"]["20"]}
    assert analysis["by_ratio"]["12_5"]["methods"]["x"]["mean"] == pytest.approx(0.705)  # (0.70 + 0.71) / 2
    assert analysis["by_ratio"]["12_5"]["methods"]["x"]["n"] == 2
    assert analysis["all_ratios"]["experiments"]["total"] == 5
    chosen = analyse(*rows, headline_ratio=0.125)
    assert chosen["best"]["experiment"] == "x-1-p12_5"
    absent = analyse(*rows, headline_ratio=0.9)
    assert absent["experiments"]["total"] == 0
    assert absent["best"] is None
    assert set(absent) == set(analysis)


def test_best_against_the_baseline() -> None:
    # 0.6 - 0.8 = -0.2; 0.6 / 0.8 = 0.75; 15 / 5 = 3
    analysis = analyse(row("baseline", 0.8, ppl_text=5.0), row("x-1", 0.6, ppl_text=15.0))
    assert analysis["baseline"]["acc_mean"] == 0.8
    assert analysis["best_vs_baseline"] == {
        "acc_mean_difference": pytest.approx(-0.2), "acc_kept": pytest.approx(0.75), "ppl_ratio": 3.0,
        "reason": None,
    }  # fmt: skip
    assert analysis["best"]["tasks"] == {"a": 0.6, "b": 0.6}
    assert analysis["best"]["taylor_seq_len"] == 16
    assert analysis["best"]["removed_param_fraction"] == 0.499
    without = analyse(row("x-1", 0.6))
    assert without["baseline"] is None
    assert without["best_vs_baseline"]["acc_kept"] is None
    assert without["best_vs_baseline"]["reason"] == "the unpruned model has no result"
    other_tasks = analyse(row("baseline", 0.8, acc_b=None), row("x-1", 0.6))
    assert other_tasks["best_vs_baseline"]["reason"] == "the unpruned model was not evaluated on the same tasks"


def test_missing_experiments_are_counted_with_reasons() -> None:
    analysis = analyse(
        missing("baseline", method=None, criterion=None), row("x-1", 0.5), missing("x-2"), missing("x-3", "failed"),
        row("x-4", 0.9, acc_b=None), missing("y-1"),
    )  # fmt: skip
    assert analysis["experiments"] == {
        "total": 5, "valid": 1, "invalid": 4, "controls": 0,
        "reasons": {"evaluated on fewer tasks": 1, "failed": 1, "missing": 2},
        "codes": {"reason.fewer_tasks": 1, "reason.failed": 1, "reason.missing": 2},
    }  # fmt: skip
    assert analysis["methods"]["y"] == {
        "mean": None, "std": None, "min": None, "max": None, "removed_param_fraction": {"min": None, "max": None},
        "n": 0, "control": False,
    }  # fmt: skip
    assert analysis["best"]["experiment"] == "x-1"  # not x-4, whose mean is over other tasks
    nothing = analyse(missing("x-1"))
    assert nothing["best"] is None
    assert nothing["ppl_accuracy"]["reason"] == "no perplexity was measured"
    assert nothing["best_vs_baseline"]["reason"] == "there is no valid experiment"


def test_a_model_of_one_experiment_or_none() -> None:
    one = analyse(row("x-1", 0.5))
    assert one["methods"]["x"] == {
        "mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5, "removed_param_fraction": {"min": 0.499, "max": 0.499},
        "n": 1, "control": False,
    }  # fmt: skip
    assert one["ppl_accuracy"]["r"] is None
    none = analyse(row("baseline", 0.5))
    assert none["headline_ratio"] is None
    assert none["by_ratio"] == {}
    with pytest.raises(UserError, match="'Other' is not in the experiments table"):
        analyse_model(table(row("x-1", 0.5)), "Other", headline_ratio=None)


def test_parts_for_the_consolidated_folder() -> None:
    analysis = analyse(row("x-1", 0.5), row("y-1", 0.6, pruning_ratio=0.2))
    best = global_best_config(analysis)
    assert best["best"]["experiment"] == "x-1"
    assert best["by_ratio"]["20"]["best"]["experiment"] == "y-1"
    methods = method_comparison(analysis)
    assert methods["best_by_mean"] == "x"
    assert list(methods["by_ratio"]["20"]["methods"]) == ["y"]


def test_ratio_keys() -> None:
    values = (0.2, 0.125, 0.35, 0.29, 1e-7)
    assert [ratio_key(value) for value in values] == ["20", "12_5", "35", "29", "0_00001"]


def study() -> list[dict[str, Any]]:
    return [
        row("baseline", 0.8, ppl_text=5.0),
        row("x-1", 0.5, taylor_seq_len=64),
        row("y-1", 0.6, ppl_text=12.0),
        row("random-1", 0.7, criterion="random"),
        row("x-1", 0.66, model="M-Instruct", kind="instruct", ppl_text=18.0),
        row("x-2", 0.3, model="N", family="G", taylor_seq_len=64, pruning_ratio=0.2),
        missing("x-1", model="N", family="G"),
    ]


def test_cross_model_by_hand() -> None:
    summary = analyse_study(table(*study()))
    json.dumps(summary, allow_nan=False)
    base, instruct = summary["best_configs"]  # N has no result at 50%
    assert (base["model"], base["method"], base["acc_kept"]) == ("M", "y", pytest.approx(0.75))  # 0.6 / 0.8
    assert instruct["acc_kept"] is None
    assert instruct["reason"] == "the unpruned model has no result"
    assert summary["models_without_best"] == ["N"]
    assert summary["overall_best"]["model"] == "M-Instruct"
    (pair,) = summary["base_vs_instruct"]
    assert pair["relative_change"] == pytest.approx(0.1)  # 0.66 / 0.6 - 1
    assert summary["method_distribution"]["overall"] == {
        "x": {"count": 1, "share": 0.5, "models": ["M-Instruct"]},
        "y": {"count": 1, "share": 0.5, "models": ["M"]},
    }
    assert summary["method_distribution"]["base"]["x"]["count"] == 0
    assert summary["parameter_distribution"]["taylor_seq_len"]["16"]["share"] == 1.0
    family = summary["architecture_comparison"]["F"]
    assert (family["acc_mean"], family["ppl"]) == (pytest.approx(0.63), pytest.approx(15.0))  # (0.6 + 0.66) / 2
    lone = summary["by_ratio"]["20"]
    assert lone["overall_best"]["model"] == "N"
    assert lone["base_vs_instruct"][0]["reason"] == "no instruct model of this family with a result"
    frame = best_configs_table(summary)
    assert list(zip(frame["model"], frame["pruning_ratio"], strict=True)) == [
        ("N", 0.2),
        ("M", 0.5),
        ("M-Instruct", 0.5),
    ]
    assert cross_model_comparison(summary)["models"]["M"] == {
        "best_method": "y", "best_acc": 0.6, "best_ppl": 12.0, "n_valid": 2
    }  # fmt: skip


def test_models_evaluated_on_different_tasks_are_not_ranked() -> None:
    summary = analyse_study(table(row("x-1", 0.5), row("x-1", 0.6, model="N", kind="instruct", acc_b=None)))
    assert summary["overall_best"] is None
    assert summary["base_vs_instruct"][0]["relative_change"] is None
    assert summary["base_vs_instruct"][0]["reason"] == "the models were evaluated on different tasks"
    assert summary["architecture_comparison"]["F"]["acc_mean"] is None


def test_models_of_different_protocols_are_not_ranked_together() -> None:
    """Each model keeps its own numbers if protocols differ (in the document limit, for example)."""
    rows = table(row("x-1", 0.5), row("x-1", 0.6, model="N", kind="instruct"))
    evaluations = pd.DataFrame({"model": ["M", "M", "N"], "protocol": ["a", "a", "b"]})
    assert protocols_of(evaluations) == {"M": "a", "N": "b"}
    summary = analyse_study(rows, protocols=protocols_of(evaluations))
    (pair,) = summary["base_vs_instruct"]
    assert pair["reason"] == "the models were evaluated by different protocols"
    assert pair["relative_change"] is None
    assert pair["common_settings"]["difference"] is None
    assert summary["overall_best"] is None
    assert summary["architecture_comparison"]["F"]["ppl"] is None  # windows may differ, too
    assert analyse_study(rows)["overall_best"]["model"] == "N"
    assert analyse_study(rows)["architecture_comparison"]["F"]["ppl"] == 10.0


def test_models_that_skipped_different_documents_are_not_ranked_together() -> None:
    """With `too_long: skip`, models of different contexts have answered different documents by one protocol."""
    rows = table(row("x-1", 0.5), row("x-1", 0.6, model="N", kind="instruct"))
    skips = {"model": ["M", "M", "N", "N"], "task": ["a", "b", "a", "b"], "protocol": "p"}
    of_one, same = (pd.DataFrame(skips | {"n_skipped": counts}) for counts in ([0, 0, 3, None], [3, 0, 3, 0]))
    assert skipped_of(of_one) == {"N": {"a": 3}}
    summary = analyse_study(rows, protocols=protocols_of(of_one), skipped=skipped_of(of_one))
    (pair,) = summary["base_vs_instruct"]
    assert pair["reason"] == pair["common_settings"]["reason"] == "the models answered different documents"
    assert (pair["relative_change"], pair["common_settings"]["difference"]) == (None, None)
    assert summary["overall_best"] is None
    assert summary["architecture_comparison"]["F"]["acc_mean"] is None
    both = analyse_study(rows, protocols=protocols_of(same), skipped=skipped_of(same))
    assert both["overall_best"]["model"] == "N"
    assert both["base_vs_instruct"][0]["common_settings"]["difference"] == pytest.approx(0.1)


def test_base_and_instruct_are_those_that_have_experiments_at_the_ratio() -> None:
    """The family has two base models, but one of them has no experiment at 50%, and the other none at 20%."""
    rows = [
        row("x-1", 0.5, model="A"), row("x-1", 0.7, model="B", pruning_ratio=0.2),
        row("x-1", 0.6, model="I", kind="instruct"), row("x-2", 0.75, model="I", kind="instruct", pruning_ratio=0.2),
    ]  # fmt: skip
    by_ratio = analyse_study(table(*rows))["by_ratio"]
    for ratio, difference in ((0.5, 0.1), (0.2, 0.05)):
        (pair,) = by_ratio[ratio_key(ratio)]["base_vs_instruct"]
        assert (pair["common_settings"]["n"], pair["reason"]) == (1, None)
        assert pair["common_settings"]["difference"] == pytest.approx(difference)
    (alone,) = analyse_study(table(*rows[:2], rows[3]))["by_ratio"][ratio_key(0.5)]["base_vs_instruct"]
    assert alone["reason"] == "no instruct model of this family with a result"
    assert alone["common_settings"]["n"] == 0


def compare_pair(base: list[dict[str, Any]], instruct: list[dict[str, Any]], *protocols: str | None) -> dict[str, Any]:
    frame = table(*base, *({**one, "model": "N", "kind": "instruct"} for one in instruct))
    of = [rows_of(frame, name, protocol=protocol) for name, protocol in zip("MN", protocols, strict=True)]
    return compare_base_and_instruct(of[0], of[1], 0.5, {})


def test_models_with_different_protocols_are_not_compared() -> None:
    """`rows_of` stores the protocol with the rows, and `compare_base_and_instruct` reads it there."""
    pair = [row("x-1", 0.5)], [row("x-1", 0.6)]
    assert compare_pair(*pair, "a", "a")["difference"] == pytest.approx(0.1)
    assert compare_pair(*pair, "a", "b")["reason"] == "the models were evaluated by different protocols"
    assert compare_pair(*pair, "a", "b")["difference"] is None
    for protocols in ((None, None), ("a", None)):
        assert compare_pair(*pair, *protocols)["reason"] == "the evaluation protocol of a model is not known"


def test_models_that_cannot_be_compared_have_a_reason() -> None:
    twice = [row("x-1", 0.5), row("x-2", 0.6)]
    assert compare_pair(twice, [row("x-1", 0.6)], "a", "a")["reason"] == "a setting occurs twice"
    of = rows_of(table(row("x-1", 0.5)), "M", protocol="a")
    endless = dataclasses.replace(of, experiments=of.experiments.assign(acc_mean=math.inf))
    assert compare_base_and_instruct(of, endless, 0.5, {})["reason"] == "the accuracy is not finite"


def test_an_error_of_the_comparison_is_not_reported_as_a_duplicate_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise UserError("something else")

    monkeypatch.setattr("espalier.analysis.base_vs_instruct.base_vs_instruct", broken)
    with pytest.raises(UserError, match="something else"):
        compare_pair([row("x-1", 0.5)], [row("x-1", 0.6)], "a", "a")


def test_models_that_could_not_be_checked_and_failed_jobs_are_in_the_comparison() -> None:
    summary = analyse_study(table(row("x-1", 0.5)))
    summary |= {
        "models_not_checked": [{"model": "B_2", "reason": "weights are <nan>"}],
        "failed_jobs": [{"job": "check_calibration A c4-s0", "reason": "shares 50 tokens"}],
    }
    text, page = cross_model_text(summary), cross_model_html(summary)
    line = "B_2: could not be checked, so it has no report: weights are <nan>"
    assert line in text
    assert line.replace("<nan>", "&lt;nan&gt;") in page
    for report in (text, page):
        assert "Failed: check_calibration A c4-s0: shares 50 tokens" in report
    assert "B_2: 未通过检查, 因此没有报告: weights are <nan>" in cross_model_text(summary, "zh")
