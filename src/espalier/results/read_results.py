"""Read the results of all experiments of a study, and refuse those that were made with other settings.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.errors import UserError
from espalier.files import read_json, read_table
from espalier.models.sizes import ModelSizes
from espalier.recipe import check_settings, evaluation_settings, plan_settings, requests_sha256
from espalier.results.consolidate import ExperimentResults, gradient_metrics, layer_rows

REPEATED_PLAN_VALUES = ("pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")
"""Values of `plan.json` that `metrics.json` repeats."""
Summaries = dict[str, dict[int, dict[str, float | None]]]
"""Gradient metrics by path of the gradient table and by sample count."""


@dataclass(frozen=True)
class ExperimentEntry:
    """Configured values and files of a row of the experiments table (`TableSources.entries`).

    Attributes:
        facts: Columns of the experiments table that the config gives: study, model, family, ..., pruning_ratio.
        metrics: Its `metrics.json`.
        plan: Its `plan.json`; None for the baseline.
        settings: Configured settings of its plan; None for the baseline.
        gradients: Table of its gradient pass; None if it uses no gradient.
        manifest: Manifest of its model.
        requests: Tokenised requests of its model.
    """

    facts: Mapping[str, Any]
    metrics: str
    plan: str | None
    settings: Mapping[str, Any] | None
    gradients: str | None
    manifest: str
    requests: str


def read_results(
    entries: Sequence[ExperimentEntry], *, evaluation: Mapping[str, Any], missing: Mapping[str, str | None]
) -> tuple[list[ExperimentResults], list[dict[str, Any]]]:
    """Read the results of all experiments of a study.

    A stale result is refused. A result is stale if its names of model and experiment, its weights, plan, requests,
    protocol, dtype or version differ from the configured ones (`espalier.recipe`).

    Args:
        entries: Configured values and files of each experiment.
        evaluation: The configured `protocol` and `dtype`.
        missing: Paths of `metrics.json` files that may be missing. The value is the reason why the experiment failed,
            or None if the reason is not known.

    Returns:
        The results of each experiment, and the rows of the layers table.

    Raises:
        UserError: If a result is stale. The message gives the file, the stored value and the configured value.
    """
    summaries: Summaries = {}
    models: dict[str, ModelInputs | None] = {}
    results, layers = [], []
    for entry in entries:
        plan = _read_plan(entry, is_missing=entry.metrics in missing)
        experiment = _read_experiment(entry, plan, _gradient_summary(entry, summaries), missing)
        if entry.manifest not in models:
            models[entry.manifest] = _read_model_inputs(entry)
        model = models[entry.manifest]
        if model:
            _check_results(entry, model, plan, experiment.metrics, evaluation)
            layers += layer_rows(plan, model.sizes) if plan else []
        results.append(experiment)
    return results, layers


@dataclass(frozen=True)
class ModelInputs:
    """Current inputs of one model, against which results are checked.

    Attributes:
        manifest: Content of its manifest.
        sizes: Sizes of the unpruned model.
        requests: SHA-256 of its tokenised requests; None if the file was deleted.
    """

    manifest: dict[str, Any]
    sizes: ModelSizes
    requests: str | None


def _read_model_inputs(entry: ExperimentEntry) -> ModelInputs | None:
    """Read the current inputs of a model; return None if it has no manifest."""
    path = Path(entry.manifest)
    if not path.exists():  # happens only if results may be missing
        return None
    manifest = read_json(path)
    return ModelInputs(manifest, ModelSizes.from_dict(manifest["structure"]), requests_sha256(entry.requests))


def _check_results(
    entry: ExperimentEntry,
    model: ModelInputs,
    plan: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any],
) -> None:
    names = {key: entry.facts[key] for key in ("model", "experiment")}
    if plan is not None and entry.plan is not None and entry.settings is not None:
        check_settings(
            entry.plan, plan, **names, settings=plan_settings(model.manifest, entry.settings),
            remedy="delete it and run again",
        )  # fmt: skip
    if plan is not None and metrics is not None:
        _check_plan_values(entry, plan, metrics)
    if metrics is not None:
        settings = evaluation_settings(model.manifest, plan, **evaluation, requests=model.requests)
        check_settings(entry.metrics, metrics, **names, settings=settings, remedy="delete it and run again")


def _check_plan_values(entry: ExperimentEntry, plan: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    for fact in REPEATED_PLAN_VALUES:
        if plan[fact] != metrics[fact]:
            raise UserError(
                f"{entry.plan}: {fact} is {plan[fact]}, but {entry.metrics} was made with {metrics[fact]}; "
                "one of the two was changed or damaged. Restore it, or delete it and run again"
            )


def _read_plan(entry: ExperimentEntry, *, is_missing: bool) -> dict[str, Any] | None:
    """Read the plan of an experiment; return None if it has no plan, or if results and plan are missing."""
    if not entry.plan or (is_missing and not Path(entry.plan).exists()):
        return None
    plan: dict[str, Any] = read_json(entry.plan)
    return plan


def _gradient_summary(entry: ExperimentEntry, summaries: Summaries) -> Mapping[str, float | None] | None:
    """Return the gradient metrics of an experiment. They are cached: experiments with equal settings share them."""
    path = entry.gradients
    if not path or not Path(path).exists():
        return None
    if path not in summaries:
        table: Any = read_table(path)
        summaries[path] = {int(n): gradient_metrics(rows) for n, rows in table.groupby("n_samples")}
    n_samples = entry.facts["taylor_num_samples"]
    if n_samples not in summaries[path]:
        raise UserError(f"{path}: has no statistics of {n_samples} samples; run `snakemake gradients` first")
    return summaries[path][n_samples]


def _read_experiment(
    entry: ExperimentEntry,
    plan: Mapping[str, Any] | None,
    gradients: Mapping[str, float | None] | None,
    missing: Mapping[str, str | None],
) -> ExperimentResults:
    # Drop the layers: ten thousand plans of a large model would take a gigabyte of memory.
    facts = plan and {key: value for key, value in plan.items() if key != "layers"}
    if entry.metrics in missing:
        return ExperimentResults(entry.facts, None, facts, gradients, missing[entry.metrics])
    return ExperimentResults(entry.facts, read_json(entry.metrics), facts, gradients)
