"""Results of generative tasks beside the mean accuracy, and counts of documents that are too long, as JSON."""

from __future__ import annotations

from typing import Any

import pandas as pd

from espalier.analysis.selection import ModelRows, to_float, valid_rows

PREFIX = "gen_"
"""Columns of the experiments table with metrics of generative tasks begin with it."""


def generation_json(rows: pd.DataFrame, model: ModelRows) -> dict[str, Any]:
    """Return the results of generative tasks under the key `generation`, or an empty mapping if there are none.

    Args:
        rows: Experiments of the model at one pruning ratio.
        model: Rows of the model.

    Returns:
        `metrics` (names without prefix), `unpruned` and `experiments` (highest mean accuracy first), each with
        `acc_mean` and the value of each metric (null if it is missing).
    """
    columns = [column for column in map(str, rows) if column.startswith(PREFIX) and rows[column].notna().any()]
    if not columns:
        return {}
    ordered = valid_rows(rows, controls=True).sort_values("acc_mean", ascending=False, kind="stable")
    return {
        "generation": {
            "metrics": [column.removeprefix(PREFIX) for column in columns],
            "unpruned": None if model.baseline is None else _values(model.baseline, columns),
            "experiments": {str(row["experiment"]): _values(row, columns) for row in ordered.to_dict("records")},
        }
    }


def too_long_json(evaluations: pd.DataFrame, model: str) -> dict[str, dict[str, int]]:
    """Count the documents of each task that are longer than the context of a model.

    All experiments of a model have the same documents and the same context. A race may stop before the longest
    documents, so the largest count is taken.

    Args:
        evaluations: The evaluations table.
        model: Name of the model.

    Returns:
        `n_truncated`, `n_skipped` and `n_samples` (scored documents) of each task that has such documents.
    """
    if "n_truncated" not in evaluations:
        return {}
    rows = evaluations[evaluations["model"] == model]
    counts = rows.groupby("task", sort=False)[["n_truncated", "n_skipped", "n_samples"]].max().fillna(0).astype("int64")
    affected = counts[(counts["n_truncated"] > 0) | (counts["n_skipped"] > 0)]
    return {str(task): {str(name): int(n) for name, n in row.items()} for task, row in affected.iterrows()}


def _values(row: Any, columns: list[str]) -> dict[str, float | None]:
    return {"acc_mean": to_float(row["acc_mean"])} | {
        column.removeprefix(PREFIX): to_float(row[column]) for column in columns
    }
