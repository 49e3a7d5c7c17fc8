"""Read the results of computed experiments from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.results.consolidate import Finished, gradient_metrics, layer_rows
from espalier.errors import UserError
from espalier.files import read_json, read_table
from espalier.models.sizes import ModelStructure
from espalier.recipe import check_made_from, evaluation_settings, plan_settings, requests_of

Entry = Mapping[str, Any]
FACTS = ("pruning_ratio", "removed_param_fraction", "extreme_pruning_layers")
"""Figures of a plan that the metrics of its experiment repeat."""
Summaries = dict[str, dict[int, dict[str, float | None]]]
"""What summarises the gradients of each table, by sample count."""


def gather(
    entries: Sequence[Entry], *, evaluation: Mapping[str, Any], missing: Mapping[str, str | None]
) -> tuple[list[Finished], list[dict[str, Any]]]:
    """Read every experiment of a study, and the rows of the layers table.

    A result enters only if it was made from what is configured now: names of model and experiment, weights, plan,
    requests, protocol, dtype and version (`espalier.recipe`).

    Args:
        entries: As `Sweep.entries`: what the config says of an experiment, and where its results lie.
        evaluation: `protocol` and `dtype`, as configured.
        missing: Files of metrics that may be missing, each with why its experiment failed, if it did.

    Raises:
        UserError: If a result is not the configured one, with its file and both values.
    """
    summaries: Summaries = {}
    models: dict[str, Model | None] = {}
    finished, layers = [], []
    for entry in entries:
        plan = _plan(entry, is_missing=entry["metrics"] in missing)
        one = _read(entry, plan, _summary(entry, summaries), missing)
        if entry["manifest"] not in models:
            models[entry["manifest"]] = _model(entry)
        model = models[entry["manifest"]]
        if model:
            _check(entry, model, plan, one.metrics, evaluation)
            layers += layer_rows(plan, model.structure) if plan else []
        finished.append(one)
    return finished, layers


@dataclass(frozen=True)
class Model:
    """What results of one model are compared with.

    Attributes:
        manifest: Content of its manifest.
        structure: Its sizes.
        requests: SHA-256 of its tokenised requests; None where they are gone.
    """

    manifest: dict[str, Any]
    structure: ModelStructure
    requests: str | None


def _model(entry: Entry) -> Model | None:
    """Read what results of a model are compared with; None where the model could not be checked."""
    path = Path(entry["manifest"])
    if not path.exists():  # only where results may be missing
        return None
    manifest = read_json(path)
    return Model(manifest, ModelStructure.from_dict(manifest["structure"]), requests_of(entry["requests"]))


def _check(
    entry: Entry,
    model: Model,
    plan: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any],
) -> None:
    names = {key: entry["facts"][key] for key in ("model", "experiment")}
    if plan is not None:
        check_made_from(
            entry["plan"], plan, **names, settings=plan_settings(model.manifest, entry["settings"]),
            remedy="run `snakemake plans` again",
        )  # fmt: skip
    if plan is not None and metrics is not None:
        _check_facts(entry, plan, metrics)
    if metrics is not None:
        settings = evaluation_settings(model.manifest, plan, **evaluation, requests=model.requests)
        check_made_from(
            entry["metrics"], metrics, **names, settings=settings, remedy="run `snakemake evaluations` again"
        )


def _check_facts(entry: Entry, plan: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    for fact in FACTS:
        if plan[fact] != metrics[fact]:
            raise UserError(
                f"{entry['plan']}: {fact} is {plan[fact]}, but {entry['metrics']} was made with {metrics[fact]}; "
                "one of the two was changed or damaged. Restore it, or delete it and run again"
            )


def _plan(entry: Entry, *, is_missing: bool) -> dict[str, Any] | None:
    """Read the plan of an experiment, if it has one."""
    if not entry["plan"] or (is_missing and not Path(entry["plan"]).exists()):
        return None
    plan: dict[str, Any] = read_json(entry["plan"])
    return plan


def _summary(entry: Entry, summaries: Summaries) -> Mapping[str, float | None] | None:
    """Summarise the gradient of an experiment; experiments of one setting share it."""
    path = entry["gradients"]
    if not path or not Path(path).exists():
        return None
    if path not in summaries:
        table: Any = read_table(path)
        summaries[path] = {int(n): gradient_metrics(rows) for n, rows in table.groupby("n_samples")}
    n_samples = entry["facts"]["taylor_num_samples"]
    if n_samples not in summaries[path]:
        raise UserError(f"{path}: has no statistics of {n_samples} samples; run `snakemake gradients` first")
    return summaries[path][n_samples]


def _read(
    entry: Entry,
    plan: Mapping[str, Any] | None,
    gradients: Mapping[str, float | None] | None,
    missing: Mapping[str, str | None],
) -> Finished:
    # Without its layers: ten thousand plans of a large model are a gigabyte.
    facts = plan and {key: value for key, value in plan.items() if key != "layers"}
    if entry["metrics"] in missing:
        return Finished(entry["facts"], None, facts, gradients, missing[entry["metrics"]])
    return Finished(entry["facts"], read_json(entry["metrics"]), facts, gradients)
