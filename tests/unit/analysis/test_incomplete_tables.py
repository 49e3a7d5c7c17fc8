"""Incomplete and unusual tables: the analysis is right, says what is missing, or raises a one-line error."""

import json

import pandas as pd
import pytest

from espalier.analysis.cross_model import analyse_study
from espalier.analysis.model import analyse_model
from espalier.errors import UserError
from espalier.reports.chart_rows import experiment_chart_rows
from espalier.reports.html import cross_model_html, model_html
from espalier.reports.latex import TABLES
from espalier.reports.text import cross_model_text, model_text
from tests.unit.analysis.test_analysis import missing, row, table
from tests.unit.analysis.test_uncertainty import evidence, experiments


def check_all_reports(frame: pd.DataFrame, model: str = "M") -> str:
    """Check that no report in either language shows nan, inf or None; return the English text report."""
    analysis = analyse_model(frame, model, headline_ratio=None)
    analysis = json.loads(json.dumps(analysis, allow_nan=False))
    summary = json.loads(json.dumps(analyse_study(frame, analyses={model: analysis}), allow_nan=False))
    rows = {key: experiment_chart_rows(frame, analysis, one) for key, one in analysis["by_ratio"].items()}
    texts = []
    for language in ("en", "zh"):
        texts += [model_text(analysis, language), cross_model_text(summary, language)]
        pages = [model_html(analysis, rows, {}, language), cross_model_html(summary, language)]
        texts += [page.split("<script")[0] for page in pages]
    texts += [make(summary) for make in TABLES.values()]
    for text in texts:
        assert not {"nan", "NaN", "inf", "None", "null"} & set(text.replace(",", " ").replace(".", " ").split())
    return texts[0]


def test_a_needed_column_is_missing() -> None:
    frame = experiments().drop(columns=["acc_mean"])
    with pytest.raises(UserError, match="the experiments table has no column acc_mean; run"):
        analyse_model(frame, "M", headline_ratio=None)


@pytest.mark.parametrize(
    "column",
    ["criterion", "calibration", "taylor_seq_len", "taylor_num_samples", "removed_param_fraction", "n_params",
     "extreme_pruning_layers"],
)  # fmt: skip
def test_another_column_is_missing(column: str) -> None:
    text = check_all_reports(experiments().drop(columns=[column]))
    assert f"The table has no column {column}; what needs it is left out." in text
    assert "x-1 keeps most: " in text or column == "criterion"


def test_gradient_and_perplexity_columns_are_missing() -> None:
    text = check_all_reports(experiments().drop(columns=["grad_norm_ratio", "ppl_text"]))
    assert "There are no gradient metrics." in text
    assert "undefined (no perplexity was measured)" in text


def test_duplicates_are_refused_by_name() -> None:
    frame = experiments()
    with pytest.raises(UserError, match="model 'M': experiment y-1 is in the experiments table twice"):
        analyse_model(pd.concat([frame, frame.iloc[[3]]]), "M", headline_ratio=None)


def test_one_experiment() -> None:
    text = check_all_reports(table(row("baseline", 0.8), row("x-1", 0.5)))
    assert "undefined (only 1 of at least 3 experiments)" in text


def test_one_experiment_with_documents() -> None:
    frame = experiments()[lambda rows: rows["experiment"].isin(["baseline", "x-1"])]
    analysis = analyse_model(frame, "M", headline_ratio=None, evidence=evidence())
    json.dumps(analysis, allow_nan=False)
    assert analysis["uncertainty"]["statements"]["set"][0]["code"] == "set_one_experiment"
    assert "There is one experiment, controls aside, so there is nothing to compare." in model_text(analysis)


def test_all_columns_are_equal() -> None:
    text = check_all_reports(table(*(row(f"x-{n}", 0.5) for n in range(1, 6))))
    assert "undefined (all values of the perplexity of text are equal)" in text
    assert "Correlations with the accuracy are undefined: all values of grad_norm_ratio are equal." in text


def test_infinite_perplexity() -> None:
    rows = [row("baseline", 0.8, ppl_text=float("inf")), row("x-1", 0.4, ppl_text=float("inf"))]
    rows += [row(f"x-{n}", n / 10, ppl_text=20.0 - n) for n in range(5, 8)]
    frame = table(*rows)
    assert "r = -1.0000 (n = 3)." in check_all_reports(frame)
    analysis = analyse_model(frame, "M", headline_ratio=None)
    assert analysis["results"]["x-1"]["ppl"] is None
    assert analysis["results"]["x-5"]["reason"] == "the perplexity of the unpruned model is not finite"


def test_no_baseline() -> None:
    text = check_all_reports(table(*(row(f"x-{n}", n / 10) for n in range(5, 8))))
    assert "Not compared with the unpruned model: the unpruned model has no result." in text


def test_nothing_at_all() -> None:
    assert "no valid experiment" in check_all_reports(table(missing("x-1"), missing("x-2", "failed")))
    assert "no valid experiment" in check_all_reports(table(row("baseline", 0.5)))
