"""The tables of a study: experiments, evaluations and layers, from results in memory. Imports no torch.

`espalier.results.read_results` reads the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from espalier.calibration.gradient_statistics import model_metrics, moments_of, pool
from espalier.evaluation.protocol import enters_mean, mean_accuracy, task_accuracy
from espalier.files import sha256_of_json
from espalier.models.sizes import ModelSizes
from espalier.naming import BASELINE
from espalier.planning.plan import kept_layers

NOTE = "note"
RACE = ("race_keep", "race_rung", "race_n_documents", "race_stopped_by")
"""Columns of experiments that were raced."""


@dataclass(frozen=True)
class ExperimentResults:
    """The results of an experiment or of the baseline, read from its files.

    Attributes:
        facts: Columns of the experiments table that the config gives: study, model, family, ..., pruning_ratio.
        metrics: Content of `metrics.json`; None if there are no results.
        plan: Content of `plan.json` without its layers; None for the baseline or if there is no plan.
        gradients: Summary of the experiment's gradient (`gradient_metrics`); None if it used no gradient.
        failure: Reason why the experiment failed; None if it succeeded or no reason is known.
    """

    facts: Mapping[str, Any]
    metrics: Mapping[str, Any] | None
    plan: Mapping[str, Any] | None
    gradients: Mapping[str, float | None] | None
    failure: str | None = None


def experiment_row(results: ExperimentResults, rule: str) -> dict[str, Any]:
    """Return the row of an experiment in the experiments table.

    Args:
        results: Results of the experiment.
        rule: Which accuracy of each task enters the mean (`espalier.evaluation.protocol.task_accuracy`).
    """
    metrics, plan = results.metrics, results.plan
    row: dict[str, Any] = {
        **results.facts,
        "removed_param_fraction": 0.0
        if results.facts["experiment"] == BASELINE
        else _value_or_none(plan, "removed_param_fraction"),
        "n_params": _value_or_none(metrics, "n_params"),
        "acc_mean": mean_accuracy(metrics["tasks"], rule) if metrics else None,
        "acc_mean_rule": rule,
    }
    if metrics:
        row |= {f"ppl_{name}": text["value"] for name, text in metrics["perplexity"].items()}
        row |= {f"acc_{name}": task_accuracy(task["metrics"], rule) for name, task in metrics["tasks"].items()}
        row |= {
            generation_column(task, metric): value["value"]
            for task, content in metrics.get("generation", {}).items()
            for metric, value in content["metrics"].items()
        }
    if results.gradients is not None:
        row |= results.gradients
    row["extreme_pruning_layers"] = _value_or_none(plan, "extreme_pruning_layers")
    if metrics and "race" in metrics:
        race = metrics["race"]
        row |= {column: race[column.removeprefix("race_")] for column in RACE}
    row["status"] = "ok" if metrics else "failed" if results.failure else "missing"
    if results.failure:
        row[NOTE] = results.failure
    row["source"] = "run"
    return row


def generation_column(task: str, metric: str) -> str:
    """Return the column of the experiments table with a metric of a generative task.

    Args:
        task: Name of the task or group.
        metric: Name of the metric as in `metrics.json`, such as `exact_match,strict-match`.
    """
    return f"gen_{task}_{metric.replace(',', '_')}"


def experiments_table(
    results: Iterable[ExperimentResults], rule: str, imported: Iterable[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """Return the experiments table: `results` in the given order, then the imported rows.

    Args:
        results: Results of the baseline and the experiments.
        rule: Which accuracy of each task enters the mean.
        imported: Rows of imported experiments.
    """
    frame = pd.DataFrame([*(experiment_row(experiment, rule) for experiment in results), *imported])
    columns = list(frame.columns)
    order = [c for c in columns if not c.startswith(("ppl_", "gen_", "grad_")) and c not in {NOTE, *RACE}]
    order = [c for c in order if not _is_task_column(c)]
    at = order.index("extreme_pruning_layers")
    middle = [c for c in columns if c.startswith("ppl_")] + [c for c in columns if _is_task_column(c)]
    middle += [c for c in columns if c.startswith("gen_")] + [c for c in columns if c.startswith("grad_")]
    # Only imported and failed experiments have notes. Without them the table has no such column.
    notes = [NOTE] if NOTE in columns else []
    # The same holds for the columns of a race.
    raced = [column for column in RACE if column in columns]
    frame = frame[order[:at] + middle + order[at:] + notes + raced]
    counts = [column for column in raced if column in {"race_rung", "race_n_documents"}]
    whole = ("taylor_seq_len", "taylor_num_samples", "n_params", "extreme_pruning_layers", *counts)
    text = ("method", "criterion", "calibration", *notes, *(column for column in raced if column not in counts))
    types = dict.fromkeys(whole, "Int64") | dict.fromkeys(text, "str") | dict.fromkeys(middle, "float64")
    types |= {"removed_param_fraction": "float64", "acc_mean": "float64", "pruning_ratio": "float64"}
    return frame.astype(types)


def gradient_metrics(statistics: pd.DataFrame) -> dict[str, float | None]:
    """Pool the gradient statistics of one setting by layer and return the metrics over all layers.

    `espalier.calibration.gradient_statistics` defines the metrics.
    """
    layers = [
        pool(moments_of(row) for row in rows.to_dict("records")).statistics()
        for _, rows in statistics.groupby("layer", sort=True)
    ]
    return model_metrics(layers)


def evaluation_rows(results: ExperimentResults) -> list[dict[str, Any]]:
    """Return the rows of an experiment in the evaluations table: one per task and metric, one per perplexity text.

    Results of an older version have no count of truncated documents.
    """
    metrics = results.metrics
    if metrics is None:
        return []
    names = {"model": results.facts["model"], "experiment": results.facts["experiment"]}
    protocol = sha256_of_json(metrics["protocol"])[:16]
    rows = [
        {
            **names, "task": task, "metric": metric, "value": value["value"], "stderr": value["stderr"],
            "n_samples": content["n_samples"], "limit": content["limit"], "n_shot": content["n_shot"],
            "task_version": None if content["version"] is None else str(content["version"]), "protocol": protocol,
            "n_truncated": content.get("n_truncated"), "n_skipped": content.get("n_skipped", 0),
        }
        for task, content in [*metrics["tasks"].items(), *metrics.get("generation", {}).items()]
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


def evaluations_table(results: Iterable[ExperimentResults], imported: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Return the evaluations table, with imported rows last."""
    rows = [row for experiment in results for row in evaluation_rows(experiment)]
    columns = (
        "model", "experiment", "task", "metric", "value", "stderr", "n_samples", "limit", "n_shot", "task_version",
        "protocol", "n_truncated", "n_skipped",
    )  # fmt: skip
    counts = ("n_samples", "limit", "n_shot", "n_truncated", "n_skipped")
    types = dict.fromkeys(columns, "str") | dict.fromkeys(counts, "Int64")
    return pd.DataFrame([*rows, *imported], columns=columns).astype(types | {"value": "float64", "stderr": "float64"})


def layers_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the layers table: rows of `layer_rows`, with the column types set.

    The column of experts is left out if no model of the study has experts.
    """
    rows = list(rows)
    of_experts = ["kept_experts"] if any("kept_experts" in row for row in rows) else []
    counts = ["kept_kv_groups", "kept_mlp_channels", *of_experts]
    columns = [
        "model", "experiment", "layer", "kept_kv_groups", "kept_mlp_channels", "params_before", "params_after",
        "attention_before", "attention_after", "mlp_before", "mlp_after", *of_experts,
    ]  # fmt: skip
    types = dict.fromkeys(columns, "int64") | dict.fromkeys(counts, "Int64")
    return pd.DataFrame(rows, columns=columns).astype(types | {"model": "str", "experiment": "str"})


def with_settings(frame: pd.DataFrame, experiments: pd.DataFrame) -> pd.DataFrame:
    """Add study, method and pruning ratio of each row's experiment to the evaluations or layers table.

    Args:
        frame: The table, with the columns `model` and `experiment`.
        experiments: The experiments table.
    """
    settings = experiments[["model", "experiment", "study", "method", "pruning_ratio"]]
    merged = frame.merge(settings, on=["model", "experiment"], how="left", validate="many_to_one")
    return merged.astype({"study": "str", "method": "str", "pruning_ratio": "float64"})


def with_entering_metric(evaluations: pd.DataFrame, experiments: pd.DataFrame) -> pd.DataFrame:
    """Mark in the evaluations table which metric of which task enters the mean accuracy.

    Args:
        evaluations: The evaluations table.
        experiments: The experiments table, which has the rule, and a column `acc_{task}` of each task in the mean.
    """
    rule = str(experiments["acc_mean_rule"].iloc[0]) if len(experiments) else "acc"
    tasks = [column.removeprefix("acc_") for column in map(str, experiments) if _is_task_column(column)]
    return evaluations.assign(enters_mean=enters_mean(evaluations, rule) & evaluations["task"].isin(tasks))


def layer_rows(plan: Mapping[str, Any], sizes: ModelSizes) -> list[dict[str, Any]]:
    """Return the rows of an experiment in the layers table.

    Args:
        plan: Content of `plan.json`.
        sizes: Sizes of the unpruned model.
    """
    rows = []
    for number, (layer, kept) in enumerate(zip(sizes.layers, kept_layers(plan), strict=True)):
        n_kv, n_mlp, is_removed, n_experts = kept
        attention, mlp, fixed = layer.kept_params(n_kv, n_mlp, n_experts)
        rows.append(
            {
                "model": plan["model"], "experiment": plan["experiment"], "layer": number, "kept_kv_groups": n_kv,
                "kept_mlp_channels": n_mlp, "params_before": layer.params,
                "params_after": 0 if is_removed else attention + mlp + fixed,
                "attention_before": layer.attention_params,
                "attention_after": attention, "mlp_before": layer.mlp_params, "mlp_after": mlp,
                **({} if n_experts is None else {"kept_experts": n_experts}),
            }
        )  # fmt: skip
    return rows


def _value_or_none(content: Mapping[str, Any] | None, key: str) -> Any:
    return None if content is None else content[key]


def _is_task_column(column: str) -> bool:
    return column.startswith("acc_") and column not in {"acc_mean", "acc_mean_rule"}
