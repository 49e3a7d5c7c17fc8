"""Bootstrap draws of the accuracies of one model, from single documents or from numbers of documents.

One set of draws covers all valid experiments of the model, controls included, and the unpruned model. If results of
single documents are missing (imported results), the draws are made from the numbers of documents. If these are missing
as well, there are no draws, and `reason` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from espalier.analysis.selection import ModelRows, is_raced, valid_rows
from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import N_DRAWS, Bootstrap, bootstrap
from espalier.statistics.correctness import Correctness, check_means, correctness
from espalier.statistics.counts import draw_from_counts
from espalier.tables import Draws, column_metadata

SEED = 0
SamplesReaders = Mapping[str, Callable[[], pd.DataFrame]]
"""For each experiment, a function that reads its samples table (results of single documents)."""


@dataclass(frozen=True)
class Evidence:
    """Draws and documents of one model, from which the uncertainty of its accuracies is computed.

    Attributes:
        draws: Joint draws of all valid experiments and of the unpruned model; None if there are no draws.
        documents: Documents that each experiment answered correctly; None if unknown.
        task_stderr: Standard error of each task's accuracy, by experiment and task.
        reason: Why `draws` is None; None if there are draws.
    """

    draws: Bootstrap | None
    documents: Correctness | None
    task_stderr: dict[str, dict[str, float | None]]
    reason: Message | None

    def covers(self, experiments: Sequence[str]) -> bool:
        """Return whether all of these experiments have draws."""
        return self.draws is not None and set(experiments) <= set(self.draws.experiments)


def gather_evidence(
    model: ModelRows,
    evaluations: pd.DataFrame,
    samples: SamplesReaders,
    *,
    n_draws: int = N_DRAWS,
    seed: int = SEED,
) -> Evidence:
    """Draw the accuracies of all valid experiments of a model and of the unpruned model.

    Args:
        model: Rows of the model.
        evaluations: The evaluations table.
        samples: Functions that read the samples tables, for each experiment that has one. They are called one at a
            time.
        n_draws: Number of draws.
        seed: Seed of the draws. Use the same seed for all models, so that the draws of two models are joint.

    Raises:
        UserError: If a samples table is invalid, the experiments were evaluated on different documents, or the
            documents do not give the mean accuracies of the experiments table.
    """
    acc_means = _mean_accuracies(model)
    evaluated = evaluations[(evaluations["model"] == model.model) & evaluations["experiment"].isin(list(acc_means))]
    stderr = _task_stderr(evaluated, model.tasks, model.acc_mean_rule)
    if not acc_means:
        return Evidence(None, None, stderr, Message("no_valid_experiment"))
    if is_raced(model.experiments):
        # The survivors alone would give a set that is too small and spreads that are too narrow.
        return Evidence(None, None, stderr, Message("only_survivors"))
    if not set(acc_means) <= set(samples):
        return _from_counts(model, evaluated, list(acc_means), stderr, n_draws, seed)
    documents = correctness_of(model, evaluated, {name: samples[name] for name in acc_means})
    if documents is None:
        return _from_counts(model, evaluated, list(acc_means), stderr, n_draws, seed)
    check_means(documents, acc_means)
    if small := [task.task for task in documents.tasks if task.n_documents < 2]:
        return Evidence(None, documents, stderr, Message("one_document", {"task": small[0]}))
    return Evidence(bootstrap(documents, seed=seed, n_draws=n_draws), documents, stderr, None)


def correctness_of(model: ModelRows, evaluated: pd.DataFrame, samples: SamplesReaders) -> Correctness | None:
    """Determine which documents some experiments of a model answered correctly.

    Args:
        model: Rows of the model.
        evaluated: Evaluations of the model. They show which tasks have acc_norm.
        samples: Functions that read the samples tables of the experiments; at least one.

    Returns:
        Correctness of the experiments; None if the group of a task cannot be determined.

    Raises:
        UserError: If a samples table is invalid, or the experiments were evaluated on different documents.
    """
    groups = _groups(next(iter(samples.values()))(), model.tasks)
    if groups is None:
        return None
    normalised = _acc_norm_tasks(evaluated, model.acc_mean_rule)
    normalised |= {task for task, group in groups.items() if group in normalised}
    tables = ((name, read_samples()) for name, read_samples in samples.items())
    return correctness(tables, acc_norm_tasks=normalised, groups=groups)


def draws_table(evidence: Evidence) -> pa.Table:
    """Convert draws to a table with a float32 column for each experiment; source and accuracies are in its metadata."""
    draws = evidence.draws
    if draws is None:
        return pa.table({}).replace_schema_metadata({"source": "none", "origin": ""})
    columns = {name: draws.draws[:, number].astype(np.float32) for number, name in enumerate(draws.experiments)}
    accuracy = ",".join(repr(float(value)) for value in draws.accuracy)
    metadata = {"source": draws.source, "origin": draws.origin, "accuracy": accuracy}
    described = column_metadata(Draws, columns)
    fields = [pa.field(name, pa.float32(), metadata=dict(described[name])) for name in columns]
    return pa.table(columns, schema=pa.schema(fields, metadata=metadata))


def read_draws(table: pa.Table) -> Bootstrap | None:
    """Convert a table of `draws_table` back to draws; None if it contains no draws."""
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    source = metadata.get("source")
    if source not in {"documents", "counts"}:
        return None
    draws = np.stack([column.to_numpy().astype(np.float64) for column in table.columns], axis=1)
    accuracy = np.array([float(value) for value in metadata["accuracy"].split(",")])
    return Bootstrap(
        tuple(table.column_names), accuracy, draws, "documents" if source == "documents" else "counts",
        metadata["origin"],
    )  # fmt: skip


def _mean_accuracies(model: ModelRows) -> dict[str, float]:
    """Return the mean accuracies of the unpruned model (unless it lacks a task), valid experiments and controls."""
    rows: list[dict[Any, Any]] = (
        [model.baseline] if model.baseline and not _lacks_a_task(model.baseline, model.tasks) else []
    )
    rows += valid_rows(model.experiments, controls=True).to_dict("records")
    return {str(row["experiment"]): float(row["acc_mean"]) for row in rows}


def _groups(samples: pd.DataFrame, tasks: list[str]) -> dict[str, str] | None:
    """Return the group of each task that is reported only as part of a group; None if it cannot be determined.

    In lm-eval, the names of a group's tasks begin with the group's name (`mmlu_anatomy` is in `mmlu`). If there is only
    one group, all tasks that are not reported themselves belong to it.
    """
    names = [str(task) for task in samples["task"].unique()]
    groups = sorted(set(tasks) - set(names), key=len, reverse=True)
    members = [task for task in names if task not in tasks]
    if len(groups) == 1:
        return dict.fromkeys(members, groups[0])
    named = {task: next((group for group in groups if task.startswith(f"{group}_")), None) for task in members}
    placed = {task: group for task, group in named.items() if group is not None}
    return placed if len(placed) == len(members) and set(placed.values()) == set(groups) else None


def _lacks_a_task(row: dict[str, Any], tasks: list[str]) -> bool:
    return any(pd.isna(row[f"acc_{task}"]) for task in tasks)


def _acc_norm_tasks(rows: pd.DataFrame, rule: str) -> set[str]:
    return set(rows.loc[rows["metric"] == "acc_norm", "task"]) if rule == "acc_norm_else_acc" else set()


def _rows_of_entering_metric(rows: pd.DataFrame, tasks: list[str], rule: str) -> pd.DataFrame:
    """Return the rows with the metric of each task that enters the mean accuracy."""
    normalised = rows["task"].isin(list(_acc_norm_tasks(rows, rule)))
    metric = normalised.map({True: "acc_norm", False: "acc"})
    return rows[rows["task"].isin(tasks) & (rows["metric"] == metric)]


def _task_stderr(rows: pd.DataFrame, tasks: list[str], rule: str) -> dict[str, dict[str, float | None]]:
    stderrs: dict[str, dict[str, float | None]] = {}
    for row in _rows_of_entering_metric(rows, tasks, rule).to_dict("records"):
        value = None if pd.isna(row["stderr"]) else float(row["stderr"])
        stderrs.setdefault(str(row["experiment"]), {})[str(row["task"])] = value
    return stderrs


def _from_counts(
    model: ModelRows, rows: pd.DataFrame, names: list[str], stderr: dict[str, dict[str, float | None]],
    n_draws: int, seed: int,
) -> Evidence:  # fmt: skip
    entering = _rows_of_entering_metric(rows, model.tasks, model.acc_mean_rule)
    values, counts = (
        entering.pivot_table(index="experiment", columns="task", values=column).reindex(
            index=names, columns=model.tasks
        )
        for column in ("value", "n_samples")
    )
    if values.isna().any(axis=None) or counts.isna().any(axis=None):
        return Evidence(None, None, stderr, Message("no_counts"))
    if ((values < 0) | (values > 1)).any(axis=None):
        return Evidence(None, None, stderr, Message("bad_task_accuracies"))
    if (counts < 2).any(axis=None):
        return Evidence(None, None, stderr, Message("few_documents", {"n": int(counts.to_numpy().min())}))
    draws = draw_from_counts(names, values.to_numpy(), counts.to_numpy(), model=model.model, seed=seed, n_draws=n_draws)
    return Evidence(draws, None, stderr, None)
