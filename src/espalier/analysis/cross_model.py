"""Comparison of all models of a study: content of `reports/cross_model/analysis_summary.json`.

Each model has one best configuration at each pruning ratio. Distributions, means and rankings are computed over the
best configurations, separately for each ratio. Mean accuracies over different tasks, by different protocols or by
different rules are never averaged or ranked together. The result is then null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from espalier.analysis.base_vs_instruct import compare_base_and_instruct, pair_on_settings
from espalier.analysis.comparisons import no_comparisons, turning_statements
from espalier.analysis.message_json import reason_fields, to_json_list
from espalier.analysis.races import level_after_race
from espalier.analysis.selection import (
    ExperimentCounts,
    ModelRows,
    baseline_scores,
    best_row,
    compare_with_baseline,
    count_experiments,
    is_raced,
    on_common_documents,
    ratios_of,
    rows_of,
    scores_of,
    to_int,
    valid_rows,
)
from espalier.analysis.study_comparisons import PairOnSettings, compare_over_models, nothing_compared
from espalier.messages.catalogue import Message
from espalier.naming import ratio_key
from espalier.statistics import conclusions
from espalier.statistics.bootstrap import Bootstrap
from espalier.statistics.levels import ERROR, study_level

Analyses = Mapping[str, Mapping[str, Any]]
ModelDraws = Mapping[str, Bootstrap | None]
KINDS = ("base", "instruct")
Skipped = Mapping[str, Mapping[str, int]]
"""Number of documents of each task that a model skipped (`skipped_of`), by model."""


@dataclass(frozen=True)
class BestConfig:
    """The best experiment of one model at one pruning ratio; a row of the table of best configurations.

    Attributes:
        model: Name of the model.
        family: Family of the model.
        kind: `base` or `instruct`.
        acc_mean_rule: Rule of the mean accuracy.
        protocol: Evaluation protocol of the model; None if it is unknown.
        pruning_ratio: Pruning ratio.
        method: Method of the best experiment.
        experiment: Name of the best experiment.
        acc_mean: Its mean accuracy.
        ppl: Its perplexity on the first text; None if it is missing.
        ppl_text: The first text; None if no perplexity was measured.
        taylor_seq_len: Sequence length; None for a method without sequences.
        taylor_num_samples: Number of sequences; None for a method without sequences.
        baseline_acc_mean: Mean accuracy of the unpruned model; None if it is missing or not comparable.
        baseline_ppl: Perplexity of the unpruned model; None if it is missing.
        acc_kept: `acc_mean` divided by `baseline_acc_mean`.
        ppl_ratio: `ppl` divided by `baseline_ppl`.
        reason: Why the experiment was not compared with the unpruned model, in English; None if it was.
        why: The same as a message.
        n_valid: Number of candidates.
        tasks: Tasks that enter the mean accuracy.
        n_params: Number of parameters.
        acc_mean_interval: Interval of `acc_mean`. This and all further values are None if they are unknown.
        acc_kept_interval: Interval of `acc_kept`.
        interval_source: `documents` or `counts`.
        n_in_set: Size of the confidence set of the best.
        n_in_simultaneous_set: Size of the simultaneous set, which the pages show.
        acc_mean_corrected: `acc_mean` without the selection bias.
        kv_cache_bytes_per_token: Size of the KV cache per token.
        flops_per_token: FLOPs per token.
        costs_relative: Costs divided by those of the unpruned model.
    """

    model: str
    family: str
    kind: str
    acc_mean_rule: str
    protocol: str | None
    pruning_ratio: float | None
    method: str
    experiment: str
    acc_mean: float
    ppl: float | None
    ppl_text: str | None
    taylor_seq_len: int | None
    taylor_num_samples: int | None
    baseline_acc_mean: float | None
    baseline_ppl: float | None
    acc_kept: float | None
    ppl_ratio: float | None
    reason: str | None
    why: dict[str, Any] | None
    n_valid: int
    tasks: list[str]
    n_params: int | None
    acc_mean_interval: list[float] | None
    acc_kept_interval: list[float] | None
    interval_source: str | None
    n_in_set: int | None
    n_in_simultaneous_set: int | None
    acc_mean_corrected: float | None
    kv_cache_bytes_per_token: int | None
    flops_per_token: int | None
    costs_relative: dict[str, float | None] | None


def analyse_study(
    experiments: pd.DataFrame,
    *,
    headline_ratio: float | None = None,
    analyses: Analyses | None = None,
    draws: ModelDraws | None = None,
    protocols: Mapping[str, str] | None = None,
    skipped: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Compare the best configurations of all models.

    Args:
        experiments: The experiments table.
        headline_ratio: Pruning ratio whose results are put at the top level; None means the largest ratio.
        analyses: Result of `analyse_model` for each model. Without it, intervals and costs are null.
        draws: Joint bootstrap draws of each model. Without them, Base against Instruct has no intervals.
        protocols: Evaluation protocol of each model (`protocols_of`). None assumes one protocol for all models.
        skipped: Documents that each model skipped (`skipped_of`). None assumes the same documents for all models.

    Returns:
        The results at the headline ratio, and `by_ratio` with the same results at each ratio.

    Raises:
        UserError: If the table lacks a required column, or lists an experiment of a model twice.
    """
    names = [str(name) for name in experiments["model"].unique()]
    known = dict.fromkeys(names, "") if protocols is None else protocols
    models = [rows_of(experiments, name, protocol=known.get(name), skipped=(skipped or {}).get(name)) for name in names]
    ratios = ratios_of(ratio for model in models for ratio in model.ratios)
    if headline_ratio is None:
        headline_ratio = max(ratios, default=None)
    analyses, draws = analyses or {}, draws or {}
    in_comparisons = [_as_compared(model, draws.get(model.model)) for model in models]
    pairs = {ratio_key(ratio): _pairs_of_kinds(in_comparisons, ratio) for ratio in ratios}
    level = max((level_after_race(study_level(), model.experiments) for model in models), default=study_level())
    compared = compare_over_models(in_comparisons, draws, pairs, level=level)
    raced = next((one["common_documents"] for one in analyses.values() if one.get("common_documents")), None)
    if raced is not None:
        compared = {key: content | {"common_documents": raced} for key, content in compared.items()}
    none = nothing_compared(Message("no_valid_experiment"), [])

    def at(ratio: float | None) -> dict[str, Any]:
        content = compared.get("" if ratio is None else ratio_key(ratio), none)
        found = _compare_models(models, in_comparisons, ratio, analyses, draws)
        return _with_comparisons(found, content, analyses)

    by_ratio = {ratio_key(ratio): at(ratio) for ratio in ratios}
    return {
        "study": models[0].study if models else None,
        "headline_ratio": headline_ratio,
        "all_ratios": {"experiments": _total_counts(model.experiments for model in models)},
        **at(headline_ratio),
        "by_ratio": by_ratio,
        "turning": next(iter(analyses.values()))["turning"] if len(analyses) == 1 else turning_statements(by_ratio),
        "error": ERROR,
    }


def protocols_of(evaluations: pd.DataFrame) -> dict[str, str]:
    """Return the evaluation protocol of each model from the evaluations table; several protocols are joined by `+`."""
    protocols = evaluations.groupby("model")["protocol"].unique()
    return {str(model): "+".join(sorted(map(str, values))) for model, values in protocols.items()}


def skipped_of(evaluations: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return how many documents of each task each model skipped, because they are longer than its context."""
    if "n_skipped" not in evaluations:
        return {}
    counts = evaluations.groupby(["model", "task"])["n_skipped"].max().fillna(0).reset_index()
    found: dict[str, dict[str, int]] = {}
    for row in counts[counts["n_skipped"] > 0].to_dict("records"):
        found.setdefault(str(row["model"]), {})[str(row["task"])] = int(row["n_skipped"])
    return found


def _as_compared(model: ModelRows, draws: Bootstrap | None) -> ModelRows:
    """Return a model whose raced experiments have their accuracies on the documents that all of them answered."""
    if draws is None or not is_raced(model.experiments):
        return model
    accuracy = dict(zip(draws.experiments, draws.accuracy.tolist(), strict=True))
    return replace(model, experiments=on_common_documents(model.experiments, accuracy))


def _compare_models(
    models: list[ModelRows], in_comparisons: list[ModelRows], ratio: float | None, analyses: Analyses, draws: ModelDraws
) -> dict[str, Any]:
    rows = {model.model: model.at(ratio) for model in models}
    tried = {name: frame for name, frame in rows.items() if len(frame)}
    configs = [_best_config(model, ratio, analyses.get(model.model)) for model in models]
    best = [config for config in configs if config is not None]
    named_methods = (str(name) for frame in tried.values() for name in frame.loc[~frame["control"], "method"])
    methods = list(dict.fromkeys(named_methods))  # in the order of the config
    named = {config.model for config in best}
    skipped = {model.model: model.skipped for model in models}
    overall_best = _overall_best(best, skipped)
    return {
        "pruning_ratio": ratio,
        "experiments": _total_counts(rows.values()),
        "coverage": {name: asdict(count_experiments(frame)) for name, frame in tried.items()},
        "best_configs": [asdict(config) for config in best],
        "models_without_best": [name for name in tried if name not in named],
        "base_vs_instruct": [
            _compare_best_of_family(family, best, skipped)
            | {"common_settings": _on_common_settings(family, in_comparisons, ratio, draws)}
            for family in _families(best)
        ],
        "method_distribution": {
            "overall": _shares(best, "method", methods),
            **{kind: _shares([config for config in best if config.kind == kind], "method", methods) for kind in KINDS},
        },
        "parameter_distribution": {
            axis: _shares(best, axis, sorted({getattr(config, axis) for config in best} - {None}))
            for axis in ("taylor_seq_len", "taylor_num_samples")
        },
        "architecture_comparison": {
            family: _architecture([config for config in best if config.family == family], skipped)
            for family in _families(best)
        },
        "overall_best": None if overall_best is None else asdict(overall_best),
    }


def _pairs_of_kinds(models: list[ModelRows], ratio: float) -> list[PairOnSettings]:
    """Return the base and instruct model of each family that has one of each, with their common settings."""
    found = []
    for family in dict.fromkeys(model.family for model in models):
        of_kind = _of_kinds(family, models, ratio)
        if all(len(one) == 1 for one in of_kind):
            pair = pair_on_settings(of_kind[0][0], of_kind[1][0], ratio)
            found += [] if pair is None else [pair]
    return found


def _with_comparisons(content: dict[str, Any], compared: dict[str, Any], analyses: Analyses) -> dict[str, Any]:
    """Add the differences over models, the means kept by each model, and the sentences on Base and Instruct."""
    key = "" if content["pruning_ratio"] is None else ratio_key(content["pruning_ratio"])
    for one in content["base_vs_instruct"]:
        common, found = one["common_settings"], compared["base_vs_instruct"].get(one["family"])
        if common is None or common["reason"] is not None:
            continue
        for field in ("measure", "simultaneous_difference", "simultaneous_interval"):
            common[field] = None if found is None else found[field.removeprefix("simultaneous_")]
        if found is not None:
            messages = conclusions.base_vs_instruct_messages(
                found["measure"], found["difference"], found["interval"], found["n"]
            )
            common["statements"] = to_json_list(messages)
    own = {
        name: analysis["by_ratio"].get(key, {}).get("comparisons") or no_comparisons(None)
        for name, analysis in analyses.items()
    }
    of_models = {
        name: {field: one[field] for field in ("measure", "level", "kept", "differences", "statements")}
        for name, one in own.items()
    }
    return {**content, "comparisons": compared, "comparisons_of_models": of_models}


def _best_config(model: ModelRows, ratio: float | None, analysis: Mapping[str, Any] | None) -> BestConfig | None:
    rows = model.at(ratio)
    row = best_row(rows, model.texts)
    if row is None:
        return None
    best, baseline = scores_of(row, model), baseline_scores(model)
    comparison = compare_with_baseline(best, baseline)
    return BestConfig(
        model=model.model,
        family=model.family,
        kind=model.kind,
        acc_mean_rule=model.acc_mean_rule,
        protocol=model.protocol,
        pruning_ratio=ratio,
        method=row["method"],
        experiment=row["experiment"],
        acc_mean=best.acc_mean,
        ppl=best.ppl,
        ppl_text=model.texts[0] if model.texts else None,
        taylor_seq_len=to_int(row["taylor_seq_len"]),
        taylor_num_samples=to_int(row["taylor_num_samples"]),
        baseline_acc_mean=None if baseline is None or comparison.reason else baseline.acc_mean,
        baseline_ppl=None if baseline is None else baseline.ppl,
        acc_kept=comparison.acc_kept,
        ppl_ratio=comparison.ppl_ratio,
        n_valid=len(valid_rows(rows)),
        tasks=model.tasks,
        n_params=best.n_params,
        **reason_fields(comparison.reason),
        **_uncertainty_columns(analysis, ratio, row["experiment"]),
    )


def _uncertainty_columns(analysis: Mapping[str, Any] | None, ratio: float | None, experiment: str) -> dict[str, Any]:
    """Return intervals, confidence set size and costs of an experiment from its model's analysis; None if missing."""
    content = (analysis or {}).get("by_ratio", {}).get("" if ratio is None else ratio_key(ratio), {})
    uncertainty = content.get("uncertainty") or {}
    of_experiment = uncertainty.get("experiments", {}).get(experiment, {})
    costs = ((analysis or {}).get("costs") or {}).get("experiments", {}).get(experiment, {})
    optimism = (uncertainty.get("optimism") or {}).get("shrinkage", {})
    return {
        "acc_mean_interval": of_experiment.get("interval"),
        "acc_kept_interval": of_experiment.get("acc_kept_interval"),
        "interval_source": uncertainty.get("source"),
        "n_in_set": (uncertainty.get("set") or {}).get("n_members"),
        "n_in_simultaneous_set": (uncertainty.get("set") or {}).get("n_simultaneous_members"),
        "acc_mean_corrected": optimism.get("corrected"),
        "kv_cache_bytes_per_token": costs.get("kv_cache_bytes_per_token"),
        "flops_per_token": costs.get("flops_per_token"),
        "costs_relative": costs.get("relative"),
    }


def _on_common_settings(
    family: str, models: list[ModelRows], ratio: float | None, draws: ModelDraws
) -> dict[str, Any] | None:
    base, instruct = _of_kinds(family, models, ratio)
    if len(base) != 1 or len(instruct) != 1:
        return None
    return compare_base_and_instruct(base[0], instruct[0], ratio, draws)


def _of_kinds(family: str, models: list[ModelRows], ratio: float | None) -> list[list[ModelRows]]:
    """Return the base and the instruct models of a family.

    If there are several of a kind, they are those that have experiments at the ratio.
    """
    of_kind = [[model for model in models if model.family == family and model.kind == kind] for kind in KINDS]
    return [one if len(one) < 2 else [model for model in one if len(model.at(ratio))] for one in of_kind]


def _compare_best_of_family(family: str, best: list[BestConfig], skipped: Skipped) -> dict[str, Any]:
    base, instruct = ([config for config in best if config.family == family and config.kind == kind] for kind in KINDS)
    comparison: dict[str, Any] = {"family": family}
    for kind, configs in (("base", base), ("instruct", instruct)):
        only = configs[0] if len(configs) == 1 else None
        comparison[f"{kind}_model"] = None if only is None else only.model
        comparison[f"{kind}_acc"] = None if only is None else only.acc_mean
    reason = next(
        (
            Message("many_of_kind" if configs else "no_kind", {"kind": Message(f"kind.{kind}"), "n": len(configs)})
            for kind, configs in (("base", base), ("instruct", instruct))
            if len(configs) != 1
        ),
        _not_comparable([*base, *instruct], skipped),
    )
    if reason is None and comparison["base_acc"] == 0:
        reason = Message("zero_base")
    change = None if reason else comparison["instruct_acc"] / comparison["base_acc"] - 1
    return {**comparison, "relative_change": change, **reason_fields(reason)}


def _architecture(configs: list[BestConfig], skipped: Skipped) -> dict[str, Any]:
    reason = _not_comparable(configs, skipped)
    perplexities = [config.ppl for config in configs if config.ppl is not None]
    same_text = len({(config.ppl_text, config.protocol) for config in configs}) == 1  # with other windows, no mean
    return {
        "acc_mean": None if reason else sum(config.acc_mean for config in configs) / len(configs),
        "ppl": sum(perplexities) / len(configs) if same_text and len(perplexities) == len(configs) else None,
        "n": len(configs),
        "models": [config.model for config in configs],
        **reason_fields(reason),
    }


def _overall_best(best: list[BestConfig], skipped: Skipped) -> BestConfig | None:
    if not best or _not_comparable(best, skipped):
        return None
    return min(best, key=lambda config: (-config.acc_mean, config.model))


def _not_comparable(configs: list[BestConfig], skipped: Skipped) -> Message | None:
    if len({tuple(sorted(config.tasks)) for config in configs}) > 1:
        return Message("different_tasks")
    if len({config.protocol for config in configs}) > 1:
        return Message("other_protocols")
    if len({config.acc_mean_rule for config in configs}) > 1:
        return Message("different_rules")
    if any(skipped[config.model] != skipped[configs[0].model] for config in configs):
        return Message("other_documents")
    return None


def _shares(best: list[BestConfig], field: str, values: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the number and share of the models whose best configuration has each value, among those with a value."""
    value_of = {config.model: value for config in best if (value := getattr(config, field)) is not None}
    models = {value: [model for model, own in value_of.items() if own == value] for value in values}
    return {
        str(value): {"count": len(names), "share": len(names) / len(value_of) if value_of else None, "models": names}
        for value, names in models.items()
    }


def _families(best: list[BestConfig]) -> list[str]:
    return list(dict.fromkeys(config.family for config in best))


def _total_counts(tables: Iterable[pd.DataFrame]) -> dict[str, Any]:
    return asdict(sum(map(count_experiments, tables), ExperimentCounts()))
