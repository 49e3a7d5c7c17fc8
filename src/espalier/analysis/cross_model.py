"""Comparison of all models of a study: content of `reports/cross_model/analysis_summary.json`.

Each model has one best configuration at each pruning ratio. Distributions, means and rankings are computed over the
best configurations, separately for each ratio. Mean accuracies over different tasks, by different protocols or by
different rules are never averaged or ranked together. The result is then null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from espalier.analysis.base_vs_instruct import compare_kinds
from espalier.analysis.best import (
    ModelRows,
    best_row,
    count,
    ratios_of,
    rows_of,
    scores,
    valid_rows,
    versus_baseline,
    whole,
)
from espalier.naming import ratio_key
from espalier.statistics.bootstrap import Bootstrap

Best = dict[str, Any]


Analyses = Mapping[str, Mapping[str, Any]]
Draws = Mapping[str, Bootstrap | None]


def analyse_study(
    experiments: pd.DataFrame,
    *,
    headline_ratio: float | None = None,
    analyses: Analyses | None = None,
    draws: Draws | None = None,
    protocols: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Compare the best configurations of all models.

    Args:
        experiments: The experiments table.
        headline_ratio: Pruning ratio whose results are put at the top level; None means the largest ratio.
        analyses: Result of `analyse_model` for each model. Without it, intervals and costs are null.
        draws: Joint bootstrap draws of each model. Without them, Base against Instruct has no intervals.
        protocols: Evaluation protocol of each model (`protocols_of`). None assumes one protocol for all models.

    Returns:
        The results at the headline ratio, and `by_ratio` with the same results at each ratio.

    Raises:
        UserError: If the table lacks a required column, or lists an experiment of a model twice.
    """
    names = [str(name) for name in experiments["model"].unique()]
    known = dict.fromkeys(names, "") if protocols is None else protocols
    models = [rows_of(experiments, name, protocol=known.get(name)) for name in names]
    ratios = ratios_of(ratio for model in models for ratio in model.ratios)
    if headline_ratio is None:
        headline_ratio = max(ratios, default=None)
    more = (analyses or {}, draws or {})
    return {
        "study": models[0].facts["study"] if models else None,
        "headline_ratio": headline_ratio,
        "all_ratios": {"experiments": _sum_counts([count(model.experiments) for model in models])},
        **_compare(models, headline_ratio, *more),
        "by_ratio": {ratio_key(ratio): _compare(models, ratio, *more) for ratio in ratios},
    }


def protocols_of(evaluations: pd.DataFrame) -> dict[str, str]:
    """Return the evaluation protocol of each model from the evaluations table; several protocols are joined by `+`."""
    found = evaluations.groupby("model")["protocol"].unique()
    return {str(model): "+".join(sorted(map(str, values))) for model, values in found.items()}


def _compare(models: list[ModelRows], ratio: float | None, analyses: Analyses, draws: Draws) -> dict[str, Any]:
    rows = {model.facts["model"]: model.at(ratio) for model in models}
    tried = {name: frame for name, frame in rows.items() if len(frame)}
    found = [_best_config(model, ratio, analyses.get(model.facts["model"])) for model in models]
    best = [row for row in found if row is not None]
    named_methods = (str(name) for frame in tried.values() for name in frame.loc[~frame["control"], "method"])
    methods = list(dict.fromkeys(named_methods))  # in the order of the config
    named = {row["model"] for row in best}
    return {
        "pruning_ratio": ratio,
        "experiments": _sum_counts([count(frame) for frame in rows.values()]),
        "coverage": {name: count(frame) for name, frame in tried.items()},
        "best_configs": best,
        "models_without_best": [name for name in tried if name not in named],
        "base_vs_instruct": [
            _base_vs_instruct(family, best) | {"common_settings": _on_common_settings(family, models, ratio, draws)}
            for family in _families(best)
        ],
        "method_distribution": {
            "overall": _shares(best, "method", methods),
            **{
                kind: _shares([row for row in best if row["kind"] == kind], "method", methods)
                for kind in ("base", "instruct")
            },
        },
        "parameter_distribution": {
            axis: _shares(best, axis, sorted({row[axis] for row in best if row[axis] is not None}))
            for axis in ("taylor_seq_len", "taylor_num_samples")
        },
        "architecture_comparison": {
            family: _architecture([row for row in best if row["family"] == family]) for family in _families(best)
        },
        "overall_best": _overall_best(best),
    }


def _best_config(of: ModelRows, ratio: float | None, analysis: Mapping[str, Any] | None) -> Best | None:
    rows = of.at(ratio)
    row = best_row(rows, of.texts)
    if row is None:
        return None
    best = scores(row, of)
    baseline = None if of.baseline is None else scores(of.baseline, of)
    compared = versus_baseline(best, baseline)
    return {
        **{key: of.facts[key] for key in ("model", "family", "kind", "acc_mean_rule")},
        "protocol": of.protocol,
        "pruning_ratio": ratio,
        "method": row["method"],
        "experiment": row["experiment"],
        "acc_mean": best["acc_mean"],
        "ppl": best["ppl"],
        "ppl_text": of.texts[0] if of.texts else None,
        "taylor_seq_len": whole(row["taylor_seq_len"]),
        "taylor_num_samples": whole(row["taylor_num_samples"]),
        "baseline_acc_mean": None if baseline is None or compared["reason"] else baseline["acc_mean"],
        "baseline_ppl": None if baseline is None else baseline["ppl"],
        "acc_kept": compared["acc_kept"],
        "ppl_ratio": compared["ppl_ratio"],
        "reason": compared["reason"],
        "n_valid": len(valid_rows(rows)),
        "tasks": of.tasks,
        "n_params": best["n_params"],
        **_certainty(analysis, ratio, row["experiment"]),
    }


def _certainty(analysis: Mapping[str, Any] | None, ratio: float | None, experiment: str) -> Best:
    """Return intervals, confidence set size and costs of an experiment from its model's analysis; null if missing."""
    of = (analysis or {}).get("by_ratio", {}).get("" if ratio is None else ratio_key(ratio), {})
    uncertainty = of.get("uncertainty") or {}
    one = uncertainty.get("experiments", {}).get(experiment, {})
    costs = ((analysis or {}).get("costs") or {}).get("experiments", {}).get(experiment, {})
    optimism = (uncertainty.get("optimism") or {}).get("shrinkage", {})
    return {
        "acc_mean_interval": one.get("interval"),
        "acc_kept_interval": one.get("acc_kept_interval"),
        "interval_source": uncertainty.get("source"),
        "n_in_set": (uncertainty.get("set") or {}).get("n_members"),
        "acc_mean_corrected": optimism.get("corrected"),
        "kv_cache_bytes_per_token": costs.get("kv_cache_bytes_per_token"),
        "flops_per_token": costs.get("flops_per_token"),
        "costs_relative": costs.get("relative"),
    }


def _on_common_settings(
    family: str, models: list[ModelRows], ratio: float | None, draws: Draws
) -> dict[str, Any] | None:
    of = {
        kind: [one for one in models if one.facts["family"] == family and one.facts["kind"] == kind]
        for kind in ("base", "instruct")
    }
    if any(len(found) != 1 for found in of.values()):
        return None
    return compare_kinds(of["base"][0], of["instruct"][0], ratio, draws)


def _base_vs_instruct(family: str, best: list[Best]) -> dict[str, Any]:
    base, instruct = (
        [row for row in best if row["family"] == family and row["kind"] == kind] for kind in ("base", "instruct")
    )
    found: dict[str, Any] = {"family": family}
    for name, rows in (("base", base), ("instruct", instruct)):
        found |= {f"{name}_model": rows[0]["model"], f"{name}_acc": rows[0]["acc_mean"]} if len(rows) == 1 else {
            f"{name}_model": None, f"{name}_acc": None
        }  # fmt: skip
    reason = next(
        (
            f"{'no' if not rows else len(rows)} {kind} model{'s' if len(rows) > 1 else ''} of this family with a result"
            for kind, rows in (("base", base), ("instruct", instruct))
            if len(rows) != 1
        ),
        _not_comparable([*base, *instruct]),
    )
    if reason is None and found["base_acc"] == 0:
        reason = "the accuracy of the base model is 0"
    change = None if reason else found["instruct_acc"] / found["base_acc"] - 1
    return {**found, "relative_change": change, "reason": reason}


def _architecture(rows: list[Best]) -> dict[str, Any]:
    reason = _not_comparable(rows)
    perplexities = [row["ppl"] for row in rows]
    one_text = len({row["ppl_text"] for row in rows}) == 1
    return {
        "acc_mean": None if reason else sum(row["acc_mean"] for row in rows) / len(rows),
        "ppl": sum(perplexities) / len(rows) if one_text and None not in perplexities else None,
        "n": len(rows),
        "models": [row["model"] for row in rows],
        "reason": reason,
    }


def _overall_best(best: list[Best]) -> Best | None:
    if not best or _not_comparable(best):
        return None
    return min(best, key=lambda row: (-row["acc_mean"], row["model"]))


def _not_comparable(rows: list[Best]) -> str | None:
    if len({tuple(sorted(row["tasks"])) for row in rows}) > 1:
        return "the models were evaluated on different tasks"
    if len({row["protocol"] for row in rows}) > 1:
        return "the models were evaluated by different protocols"
    if len({row["acc_mean_rule"] for row in rows}) > 1:
        return "the mean accuracies follow different rules"
    return None


def _shares(best: list[Best], column: str, values: Iterable[Any]) -> dict[str, dict[str, Any]]:
    having = [row for row in best if row[column] is not None]
    models = {value: [row["model"] for row in having if row[column] == value] for value in values}
    return {
        str(value): {"count": len(names), "share": len(names) / len(having) if having else None, "models": names}
        for value, names in models.items()
    }


def _families(best: list[Best]) -> list[str]:
    return list(dict.fromkeys(row["family"] for row in best))


def _sum_counts(counts: list[dict[str, Any]]) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for one in counts:
        for reason, n in one["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    sums = {key: sum(one[key] for one in counts) for key in ("total", "valid", "invalid", "controls")}
    return sums | {"reasons": dict(sorted(reasons.items()))}
