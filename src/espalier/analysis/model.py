"""Statistics of one model: content of `reports/{model}/analysis.json`. Each pruning ratio is analysed separately.

Means and standard deviations (of the population, as in the reference) are over experiments. Correlations are Pearson's,
pooled over the experiments of one ratio and within methods. If a correlation is undefined, `r` is null and `reason`
says why. Controls are included in the statistics of each method and in the results of each experiment. They are
excluded from correlations, means by setting, and the choice of the best. `uncertainty` holds intervals and tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.best import (
    ModelRows,
    best_row,
    count,
    number,
    rows_of,
    scores,
    string,
    valid_rows,
    versus_baseline,
    whole,
)
from espalier.analysis.evidence import Draws
from espalier.analysis.message_json import reason_fields, to_json_list
from espalier.analysis.perplexities import Texts, ratios_to_unpruned
from espalier.analysis.uncertainty import uncertainty_of
from espalier.naming import ratio_key
from espalier.statistics import conclusions
from espalier.statistics.comparison import perplexity_ratio
from espalier.statistics.correlation import GroupedCorrelation, grouped_correlation
from espalier.statistics.messages import Message

NOT_ASKED = Draws(None, None, {}, Message("no_counts"))


def analyse_model(
    experiments: pd.DataFrame,
    model: str,
    *,
    headline_ratio: float | None,
    evidence: Draws = NOT_ASKED,
    costs: Mapping[str, Any] | None = None,
    gradient_profile: list[dict[str, Any]] | None = None,
    perplexities: Mapping[str, Texts] | None = None,
) -> dict[str, Any]:
    """Analyse the experiments of one model.

    Args:
        experiments: The experiments table.
        model: Name of the model.
        headline_ratio: Pruning ratio whose results are put at the top level; None means the largest ratio of the model.
        evidence: Joint draws of the model's accuracies (`espalier.analysis.evidence`).
        costs: Inference costs of the model's plans (`espalier.analysis.costs`).
        gradient_profile: Gradient statistics of each layer (`espalier.analysis.profile`).
        perplexities: Perplexities of each experiment, with window losses (`espalier.analysis.perplexities`).

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
    by_ratio = {ratio_key(ratio): _analyse_ratio(rows, ratio, evidence, texts) for ratio in rows.ratios}
    headline = None if headline_ratio is None else by_ratio.get(ratio_key(headline_ratio))
    return {
        **rows.facts,
        "headline_ratio": headline_ratio,
        "missing_columns": rows.missing_columns,
        "tasks": rows.tasks,
        "imported": bool("source" in rows.experiments and (rows.experiments["source"] != "run").any()),
        "notes": _notes(rows.experiments),
        "all_ratios": {"experiments": count(rows.experiments)},
        **(headline or _analyse_ratio(rows, headline_ratio, evidence, texts)),
        "by_ratio": by_ratio,
        "costs": costs,
        "gradient_profile": gradient_profile or [],
    }


def correlation(valid: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Correlate a column with the mean accuracy, pooled and within methods.

    Args:
        valid: The valid experiments.
        metric: Name of the column.

    Returns:
        `r` (pooled; null if undefined), `n` (number of experiments used), `n_distinct` (number of distinct values),
        `reason` (why `r` is null), `why` (the reason as a message), `within` (the correlations within methods and their
        mean), and `statements` about the relation within methods.
    """
    if metric not in valid:
        nothing = Message("no_values", {"name": metric})
        return {"r": None, "n": 0, "n_distinct": 0, **reason_fields(nothing), "within": None, "statements": []}
    x, y = (pd.to_numeric(valid[column]).to_numpy(dtype=np.float64, na_value=np.nan) for column in (metric, "acc_mean"))
    found = grouped_correlation(x, y, [str(one) for one in valid["method"]], x_name=metric, y_name="acc_mean")
    pooled = found.pooled
    return {
        "r": pooled.r,
        "n": pooled.n,
        "n_distinct": pooled.n_distinct,
        **reason_fields(pooled.reason),
        "within": _within(found),
        "statements": to_json_list(conclusions.correlation_messages(metric, found)),
    }


def _within(of: GroupedCorrelation) -> dict[str, Any]:
    methods = {name: {"r": one.r, "n": one.n, **reason_fields(one.reason)} for name, one in of.within.items()}
    return {
        "mean": of.mean_within,
        "n_methods": of.n_groups,
        "strength": of.strength,
        "sign_differs": of.sign_differs,
        "mixed_signs": of.mixed_signs,
        **reason_fields(of.reason),
        "methods": methods,
    }


def _analyse_ratio(
    of: ModelRows, ratio: float | None, evidence: Draws, perplexities: Mapping[str, Texts]
) -> dict[str, Any]:
    rows = of.at(ratio)
    valid = valid_rows(rows)
    methods = _methods(rows)
    best = _best(rows, of)
    baseline = None if of.baseline is None else scores(of.baseline, of)
    return {
        "pruning_ratio": ratio,
        "experiments": count(rows),
        "methods": methods,
        "best_by_mean": _best_by_mean(methods),
        "taylor_seq_len": _by_value(valid, "taylor_seq_len"),
        "taylor_num_samples": _by_value(valid, "taylor_num_samples"),
        "gradient_correlations": {
            str(metric): correlation(valid, str(metric)) for metric in rows if str(metric).startswith("grad_")
        },
        "extreme_layers": _extreme_layers(valid),
        "ppl_accuracy": _ppl_accuracy(valid, of.texts),
        "best": best,
        "baseline": baseline,
        "best_vs_baseline": versus_baseline(best, baseline),
        "uncertainty": uncertainty_of(rows, evidence, best["experiment"] if best else None),
        "results": _results(rows, of, perplexities),
    }


def _notes(rows: pd.DataFrame) -> list[dict[str, str]]:
    """List the notes on imported experiments."""
    if "note" not in rows:
        return []
    noted = rows[rows["note"].notna()]
    return [{"experiment": str(row["experiment"]), "note": str(row["note"])} for row in noted.to_dict("records")]


def _results(rows: pd.DataFrame, of: ModelRows, perplexities: Mapping[str, Texts]) -> dict[str, dict[str, Any]]:
    """Return the accuracy, perplexity and perplexity ratio of each valid experiment, controls included."""
    found = {}
    text = f"ppl_{of.texts[0]}" if of.texts else None
    unpruned = _perplexity(of.baseline, text)
    for row in valid_rows(rows, controls=True).to_dict("records"):
        ppl = _perplexity(row, text)
        ratio, reason = perplexity_ratio(ppl, unpruned)
        found[str(row["experiment"])] = {
            "acc_mean": number(row["acc_mean"]),
            "ppl": None if ppl is None else number(ppl),
            "ppl_ratio": ratio,
            "ppl_ratios": ratios_to_unpruned(perplexities, str(row["experiment"])),
            **reason_fields(reason),
        }
    return found


def _perplexity(row: Mapping[Any, Any] | None, text: str | None) -> float | None:
    """Return the perplexity of a row, even if it is infinite; None if it is missing."""
    return None if row is None or text is None or pd.isna(row[text]) else float(row[text])


def _methods(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    found = {}
    for method, all_of_it in rows.groupby("method", sort=False):
        values = valid_rows(all_of_it, controls=True)["acc_mean"]
        found[str(method)] = {
            **_moments(values),
            "min": number(values.min()),
            "max": number(values.max()),
            "control": bool(all_of_it["control"].iloc[0]),
        }
    return found


def _moments(values: pd.Series[float]) -> dict[str, Any]:
    return {"mean": number(values.mean()), "std": number(values.std(ddof=0)), "n": len(values)}


def _best_by_mean(methods: dict[str, dict[str, Any]]) -> str | None:
    candidates = [name for name, method in methods.items() if method["n"] and not method["control"]]
    return min(candidates, key=lambda name: (-methods[name]["mean"], name), default=None)


def _by_value(valid: pd.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    having = valid[valid[column].notna()]
    return {str(whole(value)): _moments(rows["acc_mean"]) for value, rows in having.groupby(column, sort=True)}


def _extreme_layers(valid: pd.DataFrame) -> dict[str, Any]:
    groups = _by_value(valid, "extreme_pruning_layers")
    return {
        **correlation(valid, "extreme_pruning_layers"),
        "groups": {value: {"mean": group["mean"], "n": group["n"]} for value, group in groups.items()},
    }


def _ppl_accuracy(valid: pd.DataFrame, texts: list[str]) -> dict[str, Any]:
    if not texts:
        nothing = reason_fields(Message("no_perplexity"))
        return {"text": None, "r": None, "n": 0, "n_distinct": 0, **nothing, "within": None, "statements": []}
    return {"text": texts[0], **correlation(valid, f"ppl_{texts[0]}")}


def _best(rows: pd.DataFrame, of: ModelRows) -> dict[str, Any] | None:
    row = best_row(rows, of.texts)
    if row is None:
        return None
    return {
        "experiment": row["experiment"],
        "method": row["method"],
        "taylor_seq_len": whole(row["taylor_seq_len"]),
        "taylor_num_samples": whole(row["taylor_num_samples"]),
        "calibration": string(row["calibration"]),
        "removed_param_fraction": number(row["removed_param_fraction"]),
        "extreme_pruning_layers": whole(row["extreme_pruning_layers"]),
        "grad_norm_ratio": number(row.get("grad_norm_ratio", None)),
        **scores(row, of),
    }
