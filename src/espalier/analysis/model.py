"""Statistics of one model: content of `reports/{model}/analysis.json`. Each pruning ratio stands alone.

Means and standard deviations (of the population, as in the reference) are over experiments. Correlations are Pearson's,
over the experiments of one ratio; where one is undefined, `r` is null and `reason` says why. Controls are listed among
the methods and left out everywhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats  # type: ignore[import-untyped]

from espalier.analysis.best import (
    ModelRows,
    best_row,
    count,
    number,
    ratio_key,
    rows_of,
    scores,
    string,
    valid_rows,
    versus_baseline,
    whole,
)

MIN_FOR_CORRELATION = 3


def analyse_model(experiments: pd.DataFrame, model: str, *, headline_ratio: float | None) -> dict[str, Any]:
    """Analyse the experiments of one model.

    Args:
        experiments: The experiments table.
        model: Name of the model.
        headline_ratio: Pruning ratio whose results stand at the top level; None means the model's largest.

    Returns:
        Facts of the model, the results of the headline ratio, and `by_ratio` with the same keys for each ratio.

    Raises:
        UserError: If the table has no such model.
    """
    rows = rows_of(experiments, model)
    if headline_ratio is None:
        headline_ratio = max(rows.ratios, default=None)
    return {
        **rows.facts,
        "headline_ratio": headline_ratio,
        "all_ratios": {"experiments": count(rows.experiments)},
        **_analyse_ratio(rows, headline_ratio),
        "by_ratio": {ratio_key(ratio): _analyse_ratio(rows, ratio) for ratio in rows.ratios},
    }


def correlation(x: pd.Series[float], y: pd.Series[float]) -> dict[str, Any]:
    """Compute Pearson's correlation over the rows where both values are finite.

    Returns:
        `r` (null where undefined), `n` (rows used) and `reason` (null where r is defined).
    """
    a, b = (np.asarray(values.astype("float64"), dtype=np.float64) for values in (x, y))
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    n = int(both.sum())
    if n == 0:
        return {"r": None, "n": n, "reason": f"no experiment has {x.name}"}
    if n < MIN_FOR_CORRELATION:
        return {"r": None, "n": n, "reason": f"only {n} of at least {MIN_FOR_CORRELATION} experiments"}
    for values, name in ((a, x.name), (b, y.name)):
        if np.ptp(values) == 0:
            return {"r": None, "n": n, "reason": f"all values of {name} are equal"}
    r = number(stats.pearsonr(a, b).statistic)
    return {"r": r, "n": n, "reason": None if r is not None else "the values differ by less than can be computed with"}


def _analyse_ratio(of: ModelRows, ratio: float | None) -> dict[str, Any]:
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
            metric: correlation(valid[metric], valid["acc_mean"]) for metric in rows if str(metric).startswith("grad_")
        },
        "extreme_layers": _extreme_layers(valid),
        "ppl_accuracy": _ppl_accuracy(valid, of.texts),
        "best": best,
        "baseline": baseline,
        "best_vs_baseline": versus_baseline(best, baseline),
    }


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
        **correlation(valid["extreme_pruning_layers"], valid["acc_mean"]),
        "groups": {value: {"mean": group["mean"], "n": group["n"]} for value, group in groups.items()},
    }


def _ppl_accuracy(valid: pd.DataFrame, texts: list[str]) -> dict[str, Any]:
    if not texts:
        return {"text": None, "r": None, "n": 0, "reason": "no perplexity was measured"}
    return {"text": texts[0], **correlation(valid[f"ppl_{texts[0]}"], valid["acc_mean"])}


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
