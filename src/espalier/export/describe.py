"""Description of an export: the plan and the results of one experiment, in a small file.

The export job reads this file instead of the result files. It leaves out times and library versions of the evaluations:
a repeated evaluation with equal results does not change the file, so the export is not repeated. This module does not
import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC, mean_accuracy
from espalier.naming import BASELINE
from espalier.recipe import check_settings, evaluation_settings, weights_hash

_RESULTS = ("n_params", "tasks", "acc_mean", "perplexity", "protocol")


def describe_export(
    *,
    plan: Mapping[str, Any],
    metrics: Mapping[str, Any],
    baseline: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    manifest: Mapping[str, Any],
    experiment: str,
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the description of an export: what a checkpoint is made from and what its model card reports.

    Args:
        plan: Content of `plan.json`.
        metrics: Content of the experiment's `metrics.json`.
        baseline: Content of the unpruned model's `metrics.json`.
        best: Content of `global_best_config.json` if the experiment is exported as the best one, else None.
        settings: Configured `base` (name, family, kind, hub, revision) and `calibration` (dataset, config, split),
            `stock` if only stock checkpoints are wanted, and `acc_mean_rule` unless it is the default.
        manifest: Manifest of the model.
        experiment: Name of the experiment.
        evaluation: Configured `protocol` and `dtype`.

    Raises:
        UserError: If the plan or the metrics belong to another model or experiment, or were made from other weights or
            another plan, or with another protocol or dtype, or if a task has no metric for the rule of the mean.
    """
    _check_results(plan, metrics, baseline, manifest=manifest, experiment=experiment, evaluation=evaluation)
    recipe = metrics["recipe"]["settings"]
    rule = settings.get("acc_mean_rule", ACC_NORM_ELSE_ACC)
    return {
        "chosen": None if best is None else {"pruning_ratio": best["pruning_ratio"], "by": "acc_mean"},
        **{key: value for key, value in settings.items() if key != "acc_mean_rule"},
        "plan": dict(plan),
        "results": {
            **_results(metrics, rule),
            "weights": recipe["weights"],
            "plan": recipe["plan"],
            "dtype": recipe["dtype"],
            "adapter": recipe.get("adapter"),
            **({"trained_weights": recipe["trained_weights"]} if recipe.get("trained_weights") else {}),
        },
        "baseline": _results(baseline, rule),
    }


def _results(metrics: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """Return the results for the model card, with the mean accuracy by the rule of the reports.

    `metrics.json` has the mean by the default rule. `race` is added if a race stopped the experiment, whose results
    then rest on some of the documents.
    """
    mean, race = metrics["acc_mean"], metrics.get("race") or {}
    if rule != mean["rule"]:
        mean = {"value": mean_accuracy(metrics["tasks"], rule), "rule": rule, "n_tasks": len(metrics["tasks"])}
    stopped = {"race": {"n_documents": race["n_documents"]}} if race.get("stopped_by") else {}
    return {**{key: metrics[key] for key in _RESULTS}, "acc_mean": mean, **stopped}


def _check_results(
    plan: Mapping[str, Any],
    metrics: Mapping[str, Any],
    baseline: Mapping[str, Any],
    *,
    manifest: Mapping[str, Any],
    experiment: str,
    evaluation: Mapping[str, Any],
) -> None:
    model = manifest["model"]
    what = f"export: model {model!r}, experiment {experiment!r}"
    check_settings(
        f"{what}, plan.json", plan, model=model, experiment=experiment, settings={"weights": weights_hash(manifest)},
        remedy="restore that revision of the model, or make the plan again",
    )  # fmt: skip
    recipe = metrics["recipe"]["settings"]
    recovered = {key: recipe.get(key) for key in ("adapter", "trained_weights")}  # `check_recovered` reads the files
    for content, cut, name, merged in ((metrics, plan, experiment, recovered), (baseline, None, BASELINE, {})):
        settings = evaluation_settings(manifest, cut, **evaluation, requests=None, **merged)
        check_settings(
            f"{what}, metrics.json of {name!r}", content, model=model, experiment=name, settings=settings,
            remedy="run `snakemake evaluations` again",
        )  # fmt: skip
