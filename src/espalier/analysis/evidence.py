"""Bootstrap draws of the accuracies of one model, from single documents or from numbers of documents.

One set of draws covers all valid experiments of the model, controls included, and the unpruned model. If results of
single documents are missing (imported results), the draws are made from the numbers of documents. If these are missing
as well, there are no draws, and `reason` says why.

After a race, these draws have only the experiments that answered all documents. Comparisons of all experiments have
their own draws, on the documents that all of them answered (`CommonDocuments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from espalier.analysis.selection import ModelRows, is_raced, raced_rows, valid_rows
from espalier.errors import UserError
from espalier.evaluation.protocol import acc_norm_tasks, enters_mean
from espalier.messages.catalogue import Message
from espalier.naming import BASELINE, ratio_key
from espalier.statistics.bootstrap import N_DRAWS, Bootstrap, bootstrap
from espalier.statistics.correctness import COLUMNS, Correctness, check_means, correctness
from espalier.statistics.counts import draw_from_counts
from espalier.statistics.validation import FloatArray
from espalier.tables import Draws, column_metadata

SEED = 0
"""Seed of the draws. It is the same for all models, so that the draws of two models are joint."""
_ALL_DOCUMENTS = "all_documents/"
GROUP = "task_group"
"""Column of samples tables that names the group of each task."""
SamplesReaders = Mapping[str, Callable[[], pd.DataFrame]]
"""For each experiment, a function that reads its samples table (results of single documents)."""


@dataclass(frozen=True)
class CommonDocuments:
    """Documents that all experiments of a race answered, also those that were stopped.

    Attributes:
        draws: Joint draws of all these experiments, controls included, and of the unpruned model, on these documents.
        documents: Documents that each of them answered correctly.
        n_all: Number of documents of the full grid, by task.
        paths: For each experiment, number of documents and mean accuracy on them, after each rung that stopped an
            experiment and at the end. Empty for the documents of several races.
    """

    draws: Bootstrap
    documents: Correctness
    n_all: Mapping[str, int]
    paths: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean accuracy of each experiment on these documents."""
        return dict(zip(self.draws.experiments, self.draws.accuracy.tolist(), strict=True))


@dataclass(frozen=True)
class Evidence:
    """Draws and documents of one model, from which the uncertainty of its accuracies is computed.

    Attributes:
        draws: Joint draws of all valid experiments and of the unpruned model; None if there are no draws.
        documents: Documents that each experiment answered correctly; None if unknown.
        task_stderr: Standard error of each task's accuracy, by experiment and task.
        reason: Why `draws` is None; None if there are draws.
        races: Documents of the race at each pruning ratio, by the key of the ratio; empty without races.
        all_races: Documents that all experiments of the model answered; None without races.
    """

    draws: Bootstrap | None
    documents: Correctness | None
    task_stderr: dict[str, dict[str, float | None]]
    reason: Message | None
    races: Mapping[str, CommonDocuments] = field(default_factory=dict)
    all_races: CommonDocuments | None = None

    def comparable(self, key: str) -> Bootstrap | None:
        """Return the draws from which the experiments at a pruning ratio (by its key) are compared."""
        return self.races[key].draws if key in self.races else self.draws

    def covers(self, experiments: Sequence[str]) -> bool:
        """Return whether all of these experiments have draws."""
        known = {name for one in self.races.values() for name in one.draws.experiments}
        return self.draws is not None and set(experiments) <= known.union(self.draws.experiments)


def gather_evidence(
    model: ModelRows,
    evaluations: pd.DataFrame,
    samples: SamplesReaders,
    *,
    n_draws: int = N_DRAWS,
) -> Evidence:
    """Draw the accuracies of all valid experiments of a model and of the unpruned model.

    Args:
        model: Rows of the model.
        evaluations: The evaluations table.
        samples: Functions that read the samples tables, for each experiment that has one. They are called one at a
            time.
        n_draws: Number of draws.

    Raises:
        UserError: If a samples table is invalid, the experiments were evaluated on different documents, or the
            documents do not give the mean accuracies of the experiments table.
    """
    acc_means = _mean_accuracies(model)
    evaluated = evaluations[(evaluations["model"] == model.model) & evaluations["experiment"].isin(list(acc_means))]
    stderr = _task_stderr(evaluated, model.tasks, model.acc_mean_rule)
    if not acc_means:
        return Evidence(None, None, stderr, Message("no_valid_experiment"))
    found = _of_all_documents(model, evaluated, samples, acc_means, stderr, n_draws)
    if not is_raced(model.experiments):
        return found
    return _with_races(found, model, evaluated, samples, n_draws)


def _of_all_documents(
    model: ModelRows, evaluated: pd.DataFrame, samples: SamplesReaders, acc_means: Mapping[str, float],
    stderr: dict[str, dict[str, float | None]], n_draws: int,
) -> Evidence:  # fmt: skip
    """Draw the accuracies of experiments that answered all documents."""
    if not set(acc_means) <= set(samples):
        return _from_counts(model, evaluated, list(acc_means), stderr, n_draws)
    documents = correctness_of(model, evaluated, {name: samples[name] for name in acc_means})
    if documents is None:
        return _from_counts(model, evaluated, list(acc_means), stderr, n_draws)
    check_means(documents, acc_means)
    documents = with_spread(documents)
    if small := [task.task for task in documents.tasks if task.n_documents < 2]:
        return Evidence(None, documents, stderr, Message("one_document", {"task": small[0]}))
    return Evidence(bootstrap(documents, seed=SEED, n_draws=n_draws), documents, stderr, None)


def _with_races(
    found: Evidence, model: ModelRows, evaluated: pd.DataFrame, samples: SamplesReaders, n_draws: int
) -> Evidence:
    """Add the documents that all experiments of each race answered."""
    unpruned = [BASELINE] if found.draws is not None and BASELINE in found.draws.experiments else []
    of_ratio = {
        ratio_key(ratio): [str(name) for name in raced_rows(model.at(ratio))["experiment"]] for ratio in model.ratios
    }
    everyone = [name for names in of_ratio.values() for name in names]
    if found.draws is None or found.documents is None or not set(everyone) <= set(samples):
        # The survivors alone would give a set that is too small and spreads that are too narrow.
        return Evidence(None, None, found.task_stderr, found.reason or Message("only_survivors"))
    n_all = {task.task: task.n_documents for task in found.documents.with_whole_groups().tasks}
    tabulated = {str(row["experiment"]): float(row["acc_mean"]) for row in model.experiments.to_dict("records")}

    def common(names: list[str], *, with_paths: bool) -> CommonDocuments:
        tables = {name: _Answers.read(samples[name]) for name in [*names, *unpruned]}
        shared = _intersection(tables.values())
        documents = _on(model, evaluated, tables, shared)
        without_more = [name for name in names if tables[name].n_documents == len(shared)]
        check_means(documents.select(without_more), tabulated)
        documents = documents.with_whole_groups()  # a task of a group may have only a few common documents
        paths = _paths(model, evaluated, {name: tables[name] for name in names}) if with_paths else {}
        return CommonDocuments(bootstrap(documents, seed=SEED, n_draws=n_draws), documents, n_all, paths)

    try:
        races = {key: common(names, with_paths=True) for key, names in of_ratio.items() if names}
        return replace(found, races=races, all_races=common(everyone, with_paths=False) if everyone else None)
    except UserError as error:
        raise UserError(f"model {model.model}: race: {error}") from None


@dataclass(frozen=True)
class _Answers:
    """Samples table of an experiment, and the documents that it has answered."""

    frame: pd.DataFrame
    documents: pd.MultiIndex

    @classmethod
    def read(cls, read_samples: Callable[[], pd.DataFrame]) -> _Answers:
        frame = read_samples()
        frame = frame[[name for name in (*COLUMNS, GROUP) if name in frame]]
        keys = pd.MultiIndex.from_frame(frame[["task", "doc_id"]].astype({"task": str}))
        return cls(frame.set_axis(keys, axis=0), keys.unique())

    @property
    def n_documents(self) -> int:
        return len(self.documents)

    def on(self, documents: pd.MultiIndex) -> pd.DataFrame:
        """Return the rows of some documents."""
        return self.frame[self.frame.index.isin(documents)].reset_index(drop=True)


def _intersection(tables: Iterable[_Answers]) -> pd.MultiIndex:
    by_size = sorted(tables, key=lambda one: one.n_documents)
    shared = by_size[0].documents
    for one in by_size[1:]:
        shared = shared[shared.isin(one.documents)]
    return shared


def _on(
    model: ModelRows, evaluated: pd.DataFrame, tables: Mapping[str, _Answers], documents: pd.MultiIndex
) -> Correctness:
    """Return the correctness of experiments on some documents.

    Raises:
        UserError: If an experiment has not answered all of them, or the group of a task cannot be determined.
    """
    found = correctness_of(model, evaluated, {name: partial(one.on, documents) for name, one in tables.items()})
    if found is None:
        raise UserError("the groups of its tasks cannot be determined")
    return found


def _paths(
    model: ModelRows, evaluated: pd.DataFrame, tables: Mapping[str, _Answers]
) -> dict[str, list[tuple[int, float]]]:
    """Return the mean accuracy of each experiment on the documents of each rung that it answered.

    The documents of a rung are those of an experiment that the rung stopped. Later rungs contain them.
    """
    rungs = {one.n_documents: one.documents for one in tables.values()}
    paths: dict[str, list[tuple[int, float]]] = {name: [] for name in tables}
    for n_documents, documents in sorted(rungs.items()):
        took_part = {name: one for name, one in tables.items() if documents.isin(one.documents).all()}
        found = _on(model, evaluated, took_part, documents)
        for name, accuracy in zip(found.experiments, found.acc_mean.tolist(), strict=True):
            paths[name].append((n_documents, accuracy))
    return paths


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
    normalised = acc_norm_tasks(zip(evaluated["task"], evaluated["metric"], strict=True), model.acc_mean_rule)
    normalised |= {task for task, group in groups.items() if group in normalised}
    tables = ((name, read_samples()) for name, read_samples in samples.items())
    return correctness(tables, acc_norm_tasks=normalised, groups=groups)


def with_spread(documents: Correctness) -> Correctness:
    """Return the same answers, by whole groups if a task of a group has only one document, which has no spread."""
    has_single = any(task.group and task.n_documents < 2 for task in documents.tasks)
    return documents.with_whole_groups() if has_single else documents


def draws_table(evidence: Evidence) -> pa.Table:
    """Convert draws to a table with a float32 column for each experiment; source and accuracies are in its metadata.

    After a race, these are the draws on the documents that all experiments of the model answered. Columns with the
    prefix `all_documents/` then have the draws of the experiments that answered all documents.
    """
    if evidence.all_races is None:
        parts = {"": evidence.draws}
    else:
        parts = {"": evidence.all_races.draws, _ALL_DOCUMENTS: evidence.draws}
    columns: dict[str, FloatArray] = {}
    metadata = {"source": "none", "origin": ""}
    for prefix, draws in parts.items():
        if draws is not None:
            accuracy = ",".join(repr(float(value)) for value in draws.accuracy)
            found = {"source": draws.source, "origin": draws.origin, "accuracy": accuracy}
            metadata |= {prefix + key: value for key, value in found.items()}
            for number, name in enumerate(draws.experiments):
                columns[prefix + name] = draws.draws[:, number].astype(np.float32)
    described = column_metadata(Draws, columns)
    fields = [pa.field(name, pa.float32(), metadata=dict(described[name])) for name in columns]
    return pa.table(columns, schema=pa.schema(fields, metadata=metadata))


def read_draws(table: pa.Table, *, all_documents: bool = False) -> Bootstrap | None:
    """Convert a table of `draws_table` back to draws; None if it contains no draws.

    Args:
        table: The table.
        all_documents: After a race, whether to return the draws of the experiments that answered all documents, and not
            those on the documents that all experiments answered.
    """
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    prefix = _ALL_DOCUMENTS if all_documents and f"{_ALL_DOCUMENTS}source" in metadata else ""
    source = metadata.get(f"{prefix}source")
    if source not in {"documents", "counts"}:
        return None
    columns = [name for name in table.column_names if name.startswith(_ALL_DOCUMENTS) == bool(prefix)]
    draws = np.stack([table[name].to_numpy().astype(np.float64) for name in columns], axis=1)
    accuracy = np.array([float(value) for value in metadata[f"{prefix}accuracy"].split(",")])
    return Bootstrap(
        tuple(name.removeprefix(prefix) for name in columns), accuracy, draws,
        "documents" if source == "documents" else "counts", metadata[f"{prefix}origin"],
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

    Tables of earlier versions have no column that names it. Then, if there is only one group, all tasks that are not
    reported themselves belong to it. Otherwise the names of its tasks must begin with its name (`mmlu_anatomy` is in
    `mmlu`), as for most groups of lm-eval.
    """
    if GROUP in samples:
        grouped = samples[["task", GROUP]].dropna().drop_duplicates().astype(str)
        return dict(zip(grouped["task"], grouped[GROUP], strict=True))
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


def _rows_of_entering_metric(rows: pd.DataFrame, tasks: list[str], rule: str) -> pd.DataFrame:
    """Return the rows with the metric of each task that enters the mean accuracy."""
    return rows[rows["task"].isin(tasks) & enters_mean(rows, rule)]


def _task_stderr(rows: pd.DataFrame, tasks: list[str], rule: str) -> dict[str, dict[str, float | None]]:
    stderrs: dict[str, dict[str, float | None]] = {}
    for row in _rows_of_entering_metric(rows, tasks, rule).to_dict("records"):
        value = None if pd.isna(row["stderr"]) else float(row["stderr"])
        stderrs.setdefault(str(row["experiment"]), {})[str(row["task"])] = value
    return stderrs


def _from_counts(
    model: ModelRows, rows: pd.DataFrame, names: list[str], stderr: dict[str, dict[str, float | None]],
    n_draws: int,
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
    draws = draw_from_counts(names, values.to_numpy(), counts.to_numpy(), model=model.model, seed=SEED, n_draws=n_draws)
    return Evidence(draws, None, stderr, None)
