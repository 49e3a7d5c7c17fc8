"""From the table of a search folder to rows of the study's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from espalier.evaluation.protocol import ACC_NORM_ELSE_ACC
from espalier.results.legacy.scan import CONTRADICTORY, UNKNOWN
from espalier.results.legacy.table import GRADIENT, LAYER, NOTE, PARAMS, PERPLEXITY, TASK

# Only what was imported compares with what was imported; the files do not say more of their protocol.
PROTOCOL = "imported"
BLOCKS = ("params", "attention", "mlp")


def experiment_rows(table: pd.DataFrame, facts: Mapping[str, Any], rule: str) -> list[dict[str, Any]]:
    """Make rows of the experiments table.

    Args:
        table: Table of one search folder.
        facts: `study`, `family`, `kind` of its model.
        rule: Which accuracy of each task enters the mean.

    Returns:
        One row per folder of an experiment, those set aside without values. A folder whose ratio is not known has none:
        its place in the reports would be a guess.
    """
    return [
        _experiment(rows, facts, rule)
        for _, rows in table.groupby("folder", sort=False)
        if pd.notna(rows["pruning_ratio"].iloc[0])
    ]


def evaluation_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Make rows of the evaluations table. What the files do not say (limit, few-shot examples, version) is null."""
    used = _used(table)
    unsaid = {"limit": None, "n_shot": None, "task_version": None, "protocol": PROTOCOL}
    rows = []
    for row in _records(used[used["part"].isin([TASK, PERPLEXITY])]):
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
                **unsaid,
            }
        )
    return rows


def layer_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Make rows of the layers table. The files count parameters of the attention, not KV groups: those are null."""
    used = _used(table)
    layers = used[used["part"] == LAYER]
    rows = []
    for (model, experiment, layer), values in layers.groupby(["model", "experiment", "layer"], sort=False):
        found = _by_name(values)
        sizes = {f"{block}_{when}": int(found[f"{block}_{when}"]) for block in BLOCKS for when in ("before", "after")}
        kept = {"kept_kv_groups": None, "kept_mlp_channels": found.get("channels_after")}
        rows.append({"model": model, "experiment": experiment, "layer": layer, **kept, **sizes})
    return rows


def unpruned_sizes(table: pd.DataFrame) -> Iterator[tuple[str, int, list[tuple[None, int | None]]]]:
    """Yield the name of each experiment whose layers are known, its unpruned parameters, and the widths of its layers.

    Widths are (KV groups, MLP channels) as `reports.structure` wants them; KV groups are not known.
    """
    used = _used(table)
    for experiment, rows in used.groupby("experiment", sort=False):
        layers = rows[(rows["part"] == LAYER) & (rows["name"] == "channels_before")].sort_values("layer")
        before = _by_name(rows[rows["part"] == PARAMS]).get("params_before")
        if len(layers) and before is not None:
            widths = [(None, None if pd.isna(value) else int(value)) for value in layers["value"]]
            yield str(experiment), int(before), widths


def _experiment(rows: pd.DataFrame, facts: Mapping[str, Any], rule: str) -> dict[str, Any]:
    first = _records(rows.head(1))[0]
    used = _used(rows)
    params = _by_name(used[used["part"] == PARAMS])
    accuracies = _accuracies(used[used["part"] == TASK], rule)
    notes = rows.loc[rows["part"] == NOTE, "text"].tolist()
    keys = ("method", "criterion", "taylor_seq_len", "taylor_num_samples")
    row: dict[str, Any] = {
        "study": facts["study"], "model": first["model"], "family": facts["family"], "kind": facts["kind"],
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
    """Pick the accuracy of each task that enters the mean, where it is known.

    An `accuracy` without the metric's name is acc_norm where the task has it, else acc: the mean of that rule takes it.
    """
    wanted = ("acc_norm", "acc", "accuracy") if rule == ACC_NORM_ELSE_ACC else ("acc",)
    found = {}
    for task, rows in tasks.groupby("item", sort=False):
        values = _by_name(rows)
        if metric := next((metric for metric in wanted if metric in values), None):
            found[str(task)] = values[metric]
    return found


def _used(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["status"].isin([UNKNOWN, CONTRADICTORY])]


def _by_name(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        str(name): None if pd.isna(value) else value for name, value in zip(rows["name"], rows["value"], strict=True)
    }


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()} for row in rows.to_dict("records")
    ]
