"""Gather the results of a study into its three tables. Frames in, frames out; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from espalier.calibration.gradient_statistics import model_metrics, moments_of, pool
from espalier.errors import UserError
from espalier.evaluation.protocol import mean_accuracy, task_accuracy
from espalier.files import read_json, read_table, sha256_of_json
from espalier.models.sizes import ModelStructure
from espalier.naming import BASELINE
from espalier.planning.plan import kept_counts
from espalier.recipe import check_made_from, evaluation_settings, plan_settings, requests_of

NOTE = "note"


@dataclass(frozen=True)
class Finished:
    """An experiment (or the baseline) with what was read of it.

    Attributes:
        facts: Columns of the experiments table that the config gives: study, model, family, ..., pruning_ratio.
        metrics: Content of `metrics.json`; None where there are no results.
        plan: Content of `plan.json` but for its layers; None for the baseline or where there is none.
        gradients: Columns that summarise the experiment's gradient (`gradient_metrics`); None without gradient.
        failure: Why it failed; None where it did not, or has not run.
    """

    facts: Mapping[str, Any]
    metrics: Mapping[str, Any] | None
    plan: Mapping[str, Any] | None
    gradients: Mapping[str, float | None] | None
    failure: str | None = None


def experiment_row(finished: Finished, rule: str) -> dict[str, Any]:
    """Make the row of the experiments table."""
    metrics, plan = finished.metrics, finished.plan
    row: dict[str, Any] = {
        **finished.facts,
        "removed_param_fraction": 0.0
        if finished.facts["experiment"] == BASELINE
        else _of(plan, "removed_param_fraction"),
        "n_params": _of(metrics, "n_params"),
        "acc_mean": mean_accuracy(metrics["tasks"], rule) if metrics else None,
        "acc_mean_rule": rule,
    }
    if metrics:
        row |= {f"ppl_{name}": text["value"] for name, text in metrics["perplexity"].items()}
        row |= {f"acc_{name}": task_accuracy(task["metrics"], rule) for name, task in metrics["tasks"].items()}
    if finished.gradients is not None:
        row |= finished.gradients
    row["extreme_pruning_layers"] = _of(plan, "extreme_pruning_layers")
    row["status"] = "ok" if metrics else "failed" if finished.failure else "missing"
    if finished.failure:
        row[NOTE] = finished.failure
    row["source"] = "run"
    return row


def experiments_table(
    finished: Iterable[Finished], rule: str, imported: Iterable[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """Make the experiments table: the baseline first, then in the order given, then rows that were imported."""
    frame = pd.DataFrame([*(experiment_row(one, rule) for one in finished), *imported])
    columns = list(frame.columns)
    order = [c for c in columns if not c.startswith(("ppl_", "grad_")) and c != NOTE]
    order = [c for c in order if not _is_task_column(c)]
    at = order.index("extreme_pruning_layers")
    middle = [c for c in columns if c.startswith("ppl_")] + [c for c in columns if _is_task_column(c)]
    middle += [c for c in columns if c.startswith("grad_")]
    # Only imports and failures have notes; a study without any has no such column.
    notes = [NOTE] if NOTE in columns else []
    frame = frame[order[:at] + middle + order[at:] + notes]
    whole = ("taylor_seq_len", "taylor_num_samples", "n_params", "extreme_pruning_layers")
    text = ("method", "criterion", "calibration", *notes)
    types = dict.fromkeys(whole, "Int64") | dict.fromkeys(text, "str") | dict.fromkeys(middle, "float64")
    types |= {"removed_param_fraction": "float64", "acc_mean": "float64", "pruning_ratio": "float64"}
    return frame.astype(types)


def gradient_metrics(statistics: pd.DataFrame) -> dict[str, float | None]:
    """Summarise the gradient statistics of one setting over layers (`espalier.calibration.gradient_statistics`)."""
    layers = [
        pool(moments_of(row) for row in rows.to_dict("records")).statistics()
        for _, rows in statistics.groupby("layer", sort=True)
    ]
    return model_metrics(layers)


def evaluation_rows(finished: Finished) -> list[dict[str, Any]]:
    """Make the rows of the evaluations table."""
    metrics = finished.metrics
    if metrics is None:
        return []
    names = {"model": finished.facts["model"], "experiment": finished.facts["experiment"]}
    protocol = sha256_of_json(metrics["protocol"])[:16]
    rows = [
        {
            **names, "task": task, "metric": metric, "value": value["value"], "stderr": value["stderr"],
            "n_samples": content["n_samples"], "limit": content["limit"], "n_shot": content["n_shot"],
            "task_version": None if content["version"] is None else str(content["version"]), "protocol": protocol,
        }
        for task, content in metrics["tasks"].items()
        for metric, value in content["metrics"].items()
    ]  # fmt: skip
    rows += [
        {
            **names, "task": f"ppl_{name}", "metric": "perplexity", "value": text["value"], "stderr": None,
            "n_samples": text["n_tokens"], "limit": None, "n_shot": 0, "task_version": None, "protocol": protocol,
        }
        for name, text in metrics["perplexity"].items()
    ]  # fmt: skip
    return rows


def evaluations_table(finished: Iterable[Finished], imported: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Make the evaluations table, imported rows last."""
    rows = [row for one in finished for row in evaluation_rows(one)]
    columns = (
        "model", "experiment", "task", "metric", "value", "stderr", "n_samples", "limit", "n_shot", "task_version",
        "protocol",
    )  # fmt: skip
    types = dict.fromkeys(columns, "str") | dict.fromkeys(("n_samples", "limit", "n_shot"), "Int64")
    return pd.DataFrame([*rows, *imported], columns=columns).astype(types | {"value": "float64", "stderr": "float64"})


def layers_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Make the layers table."""
    columns = (
        "model", "experiment", "layer", "kept_kv_groups", "kept_mlp_channels", "params_before", "params_after",
        "attention_before", "attention_after", "mlp_before", "mlp_after",
    )  # fmt: skip
    types = dict.fromkeys(columns, "int64") | dict.fromkeys(("kept_kv_groups", "kept_mlp_channels"), "Int64")
    return pd.DataFrame(list(rows), columns=columns).astype(types | {"model": "str", "experiment": "str"})


def layer_rows(plan: Mapping[str, Any], structure: ModelStructure) -> list[dict[str, Any]]:
    """Make the rows of the layers table from a plan and the model's sizes."""
    rows = []
    for number, (layer, n_kv, n_mlp) in enumerate(zip(structure.layers, *kept_counts(plan), strict=True)):
        attention, mlp = n_kv * layer.kv_group_params, n_mlp * layer.mlp_channel_params
        rows.append(
            {
                "model": plan["model"], "experiment": plan["experiment"], "layer": number, "kept_kv_groups": n_kv,
                "kept_mlp_channels": n_mlp, "params_before": layer.params,
                "params_after": attention + mlp + layer.fixed_params, "attention_before": layer.attention_params,
                "attention_after": attention, "mlp_before": layer.mlp_params, "mlp_after": mlp,
            }
        )  # fmt: skip
    return rows


def _of(content: Mapping[str, Any] | None, key: str) -> Any:
    return None if content is None else content[key]


def _is_task_column(column: str) -> bool:
    return column.startswith("acc_") and column not in {"acc_mean", "acc_mean_rule"}


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
