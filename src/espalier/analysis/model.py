"""Statistics of one model: content of `reports/{model}/analysis.json`. Each pruning ratio is analysed separately.

Means and standard deviations (of the population, as in the reference) are over experiments. Correlations are Pearson's,
pooled over the experiments of one ratio and within methods. If a correlation is undefined, `r` is null and `reason`
says why. Controls are included in the statistics of each method and in the results of each experiment. They are
excluded from correlations, means by setting, and the choice of the best. `uncertainty` holds intervals and tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.comparisons import compare_within_model, compared_rows, no_comparisons, turning_statements
from espalier.analysis.evidence import Evidence
from espalier.analysis.generation import generation_json
from espalier.analysis.message_json import reason_fields, to_json_list
from espalier.analysis.perplexities import TextPerplexities, ratios_to_unpruned
from espalier.analysis.races import common_documents_json, level_after_race, race_json
from espalier.analysis.selection import (
    ModelRows,
    Scores,
    baseline_scores,
    best_row,
    compare_with_baseline,
    count_experiments,
    rows_of,
    scores_of,
    to_float,
    to_int,
    to_str,
    valid_rows,
)
from espalier.analysis.uncertainty import AXES, uncertainty_of
from espalier.messages.catalogue import Message
from espalier.naming import ratio_key
from espalier.statistics import conclusions
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL
from espalier.statistics.comparison import perplexity_ratio
from espalier.statistics.correlation import GroupedCorrelation, grouped_correlation, relation_is_shown
from espalier.statistics.levels import ERROR, PageLevels, divided, page_levels

NO_EVIDENCE = Evidence(None, None, {}, Message("no_counts"))


def analyse_model(
    experiments: pd.DataFrame,
    model: str,
    *,
    headline_ratio: float | None,
    evidence: Evidence = NO_EVIDENCE,
    costs: Mapping[str, Any] | None = None,
    gradient_profile: list[dict[str, Any]] | None = None,
    perplexities: Mapping[str, TextPerplexities] | None = None,
    n_models: int = 1,
) -> dict[str, Any]:
    """Analyse the experiments of one model.

    Args:
        experiments: The experiments table.
        model: Name of the model.
        headline_ratio: Pruning ratio whose results are put at the top level; None means the largest ratio of the model.
        evidence: Joint draws of the model's accuracies (`espalier.analysis.evidence`).
        costs: Inference costs of the model's plans (`espalier.analysis.costs`).
        gradient_profile: Gradient statistics of each layer (`espalier.analysis.gradient_profile`).
        perplexities: Perplexities of each experiment, with window losses (`espalier.analysis.perplexities`).
        n_models: Number of models of the study, among whose pages the error of false statements is divided.

    Returns:
        Facts about the model, the results at the headline ratio, and `by_ratio` with the same results at each ratio.

    Raises:
        UserError: If the table has no such model, lacks a required column, or lists an experiment twice, or if the
            perplexities of an experiment and of the unpruned model have different windows.
    """
    rows = rows_of(experiments, model)
    if headline_ratio is None:
        headline_ratio = max(rows.ratios, default=None)
    texts = perplexities or {}
    levels = page_levels(n_models)
    compared = compare_within_model(rows, evidence, level=levels.contrasts)
    of_ratio = _levels_of_ratio(rows, levels)
    by_ratio = {
        key: _analyse_ratio(rows, ratio, evidence, texts, of_ratio, compared[key])
        for ratio in rows.ratios
        for key in [ratio_key(ratio)]
    }
    headline = None if headline_ratio is None else by_ratio.get(ratio_key(headline_ratio))
    return {
        "study": rows.study,
        "model": rows.model,
        "family": rows.family,
        "kind": rows.kind,
        "acc_mean_rule": rows.acc_mean_rule,
        "headline_ratio": headline_ratio,
        "missing_columns": rows.missing_columns,
        "tasks": rows.tasks,
        "imported": bool("source" in rows.experiments and (rows.experiments["source"] != "run").any()),
        "notes": _notes(rows.experiments),
        "all_ratios": {"experiments": asdict(count_experiments(rows.experiments))},
        **(
            headline
            or _analyse_ratio(
                rows, headline_ratio, evidence, texts, of_ratio, no_comparisons(Message("no_valid_experiment"))
            )
        ),
        "by_ratio": by_ratio,
        "turning": turning_statements(by_ratio),
        "error": ERROR,
        "n_models": n_models,
        "costs": costs,
        "gradient_profile": gradient_profile or [],
        **common_documents_json(evidence.all_races),
    }


def correlation_with_accuracy(valid: pd.DataFrame, metric: str, *, level: float = CONFIDENCE_LEVEL) -> dict[str, Any]:
    """Correlate a column with the mean accuracy, pooled and within methods.

    Args:
        valid: The valid experiments.
        metric: Name of the column.
        level: Level of the statement on the relation, already corrected for the number of statements.

    Returns:
        `r` (pooled; null if undefined), `n` (number of experiments used), `n_distinct` (number of distinct values),
        `reason` (why `r` is null), `why` (the reason as a message), `within` (the correlations within methods and their
        mean), and `statements` about the relation within methods.
    """
    if metric not in valid:
        reason = Message("no_values", {"name": conclusions.name_in_words(metric)})
        return {"r": None, "n": 0, "n_distinct": 0, **reason_fields(reason), "within": None, "statements": []}
    x, y = (pd.to_numeric(valid[column]).to_numpy(dtype=np.float64, na_value=np.nan) for column in (metric, "acc_mean"))
    grouped = grouped_correlation(
        x,
        y,
        [str(one) for one in valid["method"]],
        x_name=conclusions.name_in_words(metric),
        y_name=Message("name.acc_mean"),
    )
    pooled = grouped.pooled
    return {
        "r": pooled.r,
        "n": pooled.n,
        "n_distinct": pooled.n_distinct,
        **reason_fields(pooled.reason),
        "within": _within_json(grouped, relation_is_shown(grouped, level)),
        "statements": to_json_list(conclusions.correlation_messages(metric, grouped, level)),
    }


def _within_json(grouped: GroupedCorrelation, shown: bool) -> dict[str, Any]:
    methods = {
        method: {"r": correlation.r, "n": correlation.n, **reason_fields(correlation.reason)}
        for method, correlation in grouped.within.items()
    }
    return {
        "mean": grouped.mean_within,
        "n_methods": grouped.n_groups,
        "strength": grouped.strength,
        "shown": shown,
        "sign_differs": grouped.sign_differs,
        "mixed_signs": grouped.mixed_signs,
        **reason_fields(grouped.reason),
        "methods": methods,
    }


def _levels_of_ratio(model: ModelRows, levels: PageLevels) -> PageLevels:
    """Return the level of each statement at one ratio: of its set, of each correlation, of each axis against seeds."""
    n_ratios = len(model.ratios)
    n_metrics = sum(column.startswith("grad_") for column in map(str, model.experiments)) + 2
    return PageLevels(
        contrasts=levels.contrasts,
        sets=divided(levels.sets, n_ratios),
        relations=divided(levels.relations, n_ratios * n_metrics),
        seeds=divided(levels.seeds, n_ratios * len(AXES)),
    )


def _analyse_ratio(
    model: ModelRows, ratio: float | None, evidence: Evidence, perplexities: Mapping[str, TextPerplexities],
    levels: PageLevels, compared: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    rows = model.at(ratio)
    key = "" if ratio is None else ratio_key(ratio)
    common = evidence.races.get(key)
    levels = replace(levels, seeds=level_after_race(levels.seeds, rows))
    # After a race, sections on methods and settings use the documents that all experiments answered.
    in_comparisons = compared_rows(rows, key, evidence)
    valid = valid_rows(in_comparisons)
    methods = _methods_json(in_comparisons)
    best = best_row(rows, model.texts)
    best_scores = None if best is None else scores_of(best, model)
    baseline = baseline_scores(model)
    return {
        "pruning_ratio": ratio,
        "experiments": asdict(count_experiments(rows)),
        "methods": methods,
        "best_by_mean": _best_by_mean(methods),
        "taylor_seq_len": _by_value(valid, "taylor_seq_len"),
        "taylor_num_samples": _by_value(valid, "taylor_num_samples"),
        "gradient_correlations": {
            metric: correlation_with_accuracy(valid, metric, level=levels.relations)
            for metric in map(str, rows)
            if metric.startswith("grad_")
        },
        "extreme_layers": _extreme_layers_json(valid, levels.relations),
        "ppl_accuracy": _ppl_accuracy(_with_perplexity(valid, rows, model.texts), model.texts, levels.relations),
        "best": None if best is None or best_scores is None else _best_json(best, best_scores),
        "baseline": None if baseline is None else asdict(baseline),
        "best_vs_baseline": compare_with_baseline(best_scores, baseline).to_json(),
        "uncertainty": uncertainty_of(rows, evidence, best["experiment"] if best else None, levels),
        "comparisons": compared,
        "results": _results_json(rows, model, perplexities),
        **generation_json(rows, model),
        **race_json(rows, common),
    }


def _with_perplexity(compared: pd.DataFrame, rows: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    """Return the experiments whose perplexity is compared with their accuracy.

    A race measures the perplexity of its survivors, or of all experiments. The survivors alone are compared on all
    documents.
    """
    return compared if texts and compared[f"ppl_{texts[0]}"].notna().all() else valid_rows(rows)


def _notes(rows: pd.DataFrame) -> list[dict[str, str]]:
    """List the notes on imported experiments."""
    if "note" not in rows:
        return []
    noted = rows[rows["note"].notna()]
    return [{"experiment": str(row["experiment"]), "note": str(row["note"])} for row in noted.to_dict("records")]


def _results_json(
    rows: pd.DataFrame, model: ModelRows, perplexities: Mapping[str, TextPerplexities]
) -> dict[str, dict[str, Any]]:
    """Return the accuracy, perplexity and perplexity ratio of each valid experiment, controls included."""
    results = {}
    text = f"ppl_{model.texts[0]}" if model.texts else None
    unpruned = _perplexity_of(model.baseline, text)
    for row in valid_rows(rows, controls=True).to_dict("records"):
        ppl = _perplexity_of(row, text)
        ratio = perplexity_ratio(ppl, unpruned)
        results[str(row["experiment"])] = {
            "acc_mean": to_float(row["acc_mean"]),
            "ppl": None if ppl is None else to_float(ppl),
            "ppl_ratio": ratio.value,
            "ppl_ratios": ratios_to_unpruned(perplexities, str(row["experiment"])),
            **reason_fields(ratio.reason),
        }
    return results


def _perplexity_of(row: Mapping[Any, Any] | None, text: str | None) -> float | None:
    """Return the perplexity of a row, even if it is infinite; None if it is missing."""
    return None if row is None or text is None or pd.isna(row[text]) else float(row[text])


def _methods_json(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    methods = {}
    for method, method_rows in rows.groupby("method", sort=False):
        valid = valid_rows(method_rows, controls=True)
        values, removed = valid["acc_mean"], pd.to_numeric(valid["removed_param_fraction"])
        methods[str(method)] = {
            **_moments_json(values),
            "min": to_float(values.min()),
            "max": to_float(values.max()),
            # Whole layers do not meet a ratio exactly, so methods may remove different shares at one ratio.
            "removed_param_fraction": {"min": to_float(removed.min()), "max": to_float(removed.max())},
            "control": bool(method_rows["control"].iloc[0]),
        }
    return methods


def _moments_json(values: pd.Series[float]) -> dict[str, Any]:
    return {"mean": to_float(values.mean()), "std": to_float(values.std(ddof=0)), "n": len(values)}


def _best_by_mean(methods: dict[str, dict[str, Any]]) -> str | None:
    candidates = [name for name, method in methods.items() if method["n"] and not method["control"]]
    return min(candidates, key=lambda name: (-methods[name]["mean"], name), default=None)


def _by_value(valid: pd.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    groups = valid[valid[column].notna()].groupby(column, sort=True)
    return {str(to_int(value)): _moments_json(rows["acc_mean"]) for value, rows in groups}


def _extreme_layers_json(valid: pd.DataFrame, level: float) -> dict[str, Any]:
    groups = _by_value(valid, "extreme_pruning_layers")
    return {
        **correlation_with_accuracy(valid, "extreme_pruning_layers", level=level),
        "groups": {value: {"mean": group["mean"], "n": group["n"]} for value, group in groups.items()},
    }


def _ppl_accuracy(valid: pd.DataFrame, texts: list[str], level: float) -> dict[str, Any]:
    if not texts:
        reason = reason_fields(Message("no_perplexity"))
        return {"text": None, "r": None, "n": 0, "n_distinct": 0, **reason, "within": None, "statements": []}
    return {"text": texts[0], **correlation_with_accuracy(valid, f"ppl_{texts[0]}", level=level)}


def _best_json(row: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    return {
        "experiment": row["experiment"],
        "method": row["method"],
        "taylor_seq_len": to_int(row["taylor_seq_len"]),
        "taylor_num_samples": to_int(row["taylor_num_samples"]),
        "calibration": to_str(row["calibration"]),
        "removed_param_fraction": to_float(row["removed_param_fraction"]),
        "extreme_pruning_layers": to_int(row["extreme_pruning_layers"]),
        "grad_norm_ratio": to_float(row.get("grad_norm_ratio", None)),
        **asdict(scores),
    }
