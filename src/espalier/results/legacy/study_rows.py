"""Convert the table of an imported search folder into rows of the study's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from espalier.evaluation.protocol import entering_metrics
from espalier.results.legacy.scan import CONTRADICTORY, UNKNOWN
from espalier.results.legacy.table import GRADIENT, LAYER, NOTE, PARAMS, PERPLEXITY, TASK

# Imported results are comparable only with each other: the files do not give the full evaluation protocol.
PROTOCOL = "imported"
_SIZES = ("params_before", "params_after", "attention_before", "attention_after", "mlp_before", "mlp_after")


@dataclass(frozen=True)
class StudyFacts:
    """Facts about an imported model that the config gives.

    Attributes:
        study: Name of the study.
        family: Family of the model.
        kind: `base` or `instruct`.
    """

    study: str
    family: str
    kind: str


class UnprunedSizes(NamedTuple):
    """Sizes of the unpruned model that an experiment is compared with.

    Attributes:
        experiment: Name of the experiment.
        total_params: Parameters of the unpruned model.
        widths: Numbers of KV groups and MLP channels of each layer; None if not known.
    """

    experiment: str
    total_params: int
    widths: Sequence[tuple[int | None, int | None]]


def legacy_experiment_rows(table: pd.DataFrame, facts: StudyFacts, rule: str) -> list[dict[str, Any]]:
    """Return rows of the experiments table.

    Args:
        table: Table of one search folder.
        facts: Facts about its model from the config.
        rule: Which accuracy of each task enters the mean.

    Returns:
        One row per experiment folder. Experiments with status `unknown` or `contradictory` have a row without results.
        Folders with an unknown pruning ratio have no row, because the reports are grouped by ratio.
    """
    return [
        _experiment_row(rows, facts, rule)
        for _, rows in table.groupby("folder", sort=False)
        if pd.notna(rows["pruning_ratio"].iloc[0])
    ]


def legacy_evaluation_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of the evaluations table. Limit, number of few-shot examples and task version are not known: null."""
    used = _used(table)
    unknown = {"limit": None, "n_shot": None, "task_version": None, "protocol": PROTOCOL}
    rows = []
    for row in _row_dicts(used[used["part"].isin([TASK, PERPLEXITY])]):
        is_task = row["part"] == TASK
        rows.append(
            {
                "model": row["model"],
                "experiment": row["experiment"],
                "task": row["item"] if is_task else f"ppl_{row['item']}",
                "metric": row["name"] if is_task else "perplexity",
                "value": row["value"],
                "stderr": row["stderr"],
                "n_samples": row["n_samples"],
                **unknown,
            }
        )
    return rows


def legacy_layer_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of the layers table. The files do not give the number of KV groups, so `kept_kv_groups` is null."""
    used = _used(table)
    layers = used[used["part"] == LAYER]
    rows = []
    for (model, experiment, layer), values in layers.groupby(["model", "experiment", "layer"], sort=False):
        by_name = _by_name(values)
        sizes = {name: int(by_name[name]) for name in _SIZES}
        kept = {"kept_kv_groups": None, "kept_mlp_channels": by_name.get("channels_after")}
        rows.append({"model": model, "experiment": experiment, "layer": layer, **kept, **sizes})
    return rows


def unpruned_sizes(table: pd.DataFrame) -> Iterator[UnprunedSizes]:
    """Yield the sizes of the unpruned model, for each experiment whose layers are known. KV groups are not known."""
    used = _used(table)
    for experiment, rows in used.groupby("experiment", sort=False):
        layers = rows[(rows["part"] == LAYER) & (rows["name"] == "channels_before")].sort_values("layer")
        before = _by_name(rows[rows["part"] == PARAMS]).get("params_before")
        if len(layers) and before is not None:
            widths = [(None, None if pd.isna(value) else int(value)) for value in layers["value"]]
            yield UnprunedSizes(str(experiment), int(before), widths)


def _experiment_row(rows: pd.DataFrame, facts: StudyFacts, rule: str) -> dict[str, Any]:
    first = _row_dicts(rows.head(1))[0]
    used = _used(rows)
    params = _by_name(used[used["part"] == PARAMS])
    accuracies = _accuracies(used[used["part"] == TASK], rule)
    notes = rows.loc[rows["part"] == NOTE, "text"].tolist()
    keys = ("method", "criterion", "taylor_seq_len", "taylor_num_samples")
    row: dict[str, Any] = {
        "study": facts.study, "model": first["model"], "family": facts.family, "kind": facts.kind,
        "experiment": first["experiment"], **{key: first[key] for key in keys}, "calibration": None,
        "pruning_ratio": first["pruning_ratio"], "removed_param_fraction": params.get("removed_param_fraction"),
        "n_params": params.get("n_params"),
        "acc_mean": sum(accuracies.values()) / len(accuracies) if accuracies else None, "acc_mean_rule": rule,
    }  # fmt: skip
    texts = used[used["part"] == PERPLEXITY]
    row |= {f"ppl_{text}": value for text, value in zip(texts["item"], texts["value"], strict=True)}
    row |= {f"acc_{task}": value for task, value in accuracies.items()}
    row |= _by_name(used[used["part"] == GRADIENT])
    return row | {
        "extreme_pruning_layers": params.get("extreme_pruning_layers"),
        "status": first["status"],
        "source": first["source"],
        "note": "; ".join(notes) or None,
    }


def _accuracies(tasks: pd.DataFrame, rule: str) -> dict[str, float]:
    """Return the accuracy of each task that enters the mean; tasks without it are left out.

    The value `accuracy` does not name its metric. It is acc_norm if the task has acc_norm, else acc. It therefore
    counts under the rule `acc_norm_else_acc` only.
    """
    wanted = entering_metrics(rule)
    accuracies = {}
    for task, rows in tasks.groupby("item", sort=False):
        values = _by_name(rows)
        if metric := next((metric for metric in wanted if metric in values), None):
            accuracies[str(task)] = values[metric]
    return accuracies


def _used(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["status"].isin([UNKNOWN, CONTRADICTORY])]


def _by_name(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        str(name): None if pd.isna(value) else value for name, value in zip(rows["name"], rows["value"], strict=True)
    }


def _row_dicts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()} for row in rows.to_dict("records")
    ]
