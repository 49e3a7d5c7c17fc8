"""Matrix of the documents that each experiment answered correctly. All uncertainties are computed from it.

Documents are scored as in lm-eval. The answer is the choice with the largest log-likelihood (`acc`) or with the largest
log-likelihood per character (`acc_norm`). The first choice wins a tie. A document is correct if its answer is a gold
choice.

acc_mean = sum over tasks of weight(task) * mean over its documents of correct;  weight = 1 / number of tasks

A group of lm-eval tasks (`groups`) counts as one task. Its accuracy is the mean over all documents of its members, so
the weight of the group is divided among its members in proportion to their numbers of documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from espalier.errors import UserError
from espalier.statistics.validation import BoolArray, FloatArray, IntArray

COLUMNS = ("task", "doc_id", "choice", "gold", "loglikelihood", "n_chars")


@dataclass(frozen=True)
class TaskDocuments:
    """The documents of one task.

    Attributes:
        task: Name of the task.
        weight: Weight of the task in the mean accuracy. The weights of all tasks sum to 1.
        correct: Whether each experiment answered each document correctly, (n_experiments, n_documents).
        group: Group of lm-eval tasks to which the task belongs; None if it counts as a task of its own.
        strata: For a whole group (`Correctness.with_whole_groups`), the name and number of documents of each of its
            tasks, in the order of the documents; empty otherwise.
    """

    task: str
    weight: float
    correct: BoolArray
    group: str | None = None
    strata: tuple[tuple[str, int], ...] = ()

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return int(self.correct.shape[1])

    @property
    def accuracy(self) -> FloatArray:
        """Accuracy of each experiment, (n_experiments,)."""
        return np.asarray(self.correct.mean(axis=1), dtype=np.float64)

    @property
    def stderr(self) -> FloatArray | None:
        """Standard error of each accuracy as in lm-eval: sqrt(p (1 - p) / (n - 1)); None for fewer than 2 documents."""
        if self.n_documents < 2:
            return None
        p = self.accuracy
        return np.sqrt(p * (1 - p) / (self.n_documents - 1))


@dataclass(frozen=True)
class Correctness:
    """Correctness of several experiments on the same documents.

    Attributes:
        experiments: Names of the experiments, in the order of all arrays.
        tasks: The tasks, in the order of the first experiment's samples table.
        fingerprint: Hash of the task names (in this order), document numbers, choice numbers and gold choices.
    """

    experiments: tuple[str, ...]
    tasks: tuple[TaskDocuments, ...]
    fingerprint: str

    @property
    def acc_mean(self) -> FloatArray:
        """Mean accuracy of each experiment, (n_experiments,)."""
        values = np.array([task.weight * task.accuracy for task in self.tasks])
        return np.asarray(values.sum(axis=0), dtype=np.float64)

    @property
    def n_documents(self) -> int:
        """Number of documents of all tasks."""
        return sum(task.n_documents for task in self.tasks)

    def with_whole_groups(self) -> Correctness:
        """Return the same answers with one entry for each group instead of one for each of its tasks.

        The accuracies stay the same. A bootstrap then draws from all documents of a group at once, which is right if
        some of its tasks have only a few documents. A group takes the place of its first task.
        """
        members: dict[str, list[TaskDocuments]] = {}
        for task in self.tasks:
            members.setdefault(task.group or task.task, []).append(task)
        whole = [
            TaskDocuments(
                name, sum(task.weight for task in tasks), np.concatenate([task.correct for task in tasks], axis=1),
                strata=tuple((task.task, task.n_documents) for task in tasks),
            )
            if tasks[0].group
            else tasks[0]
            for name, tasks in members.items()
        ]  # fmt: skip
        return replace(self, tasks=tuple(whole))

    def select(self, experiments: Sequence[str]) -> Correctness:
        """Return the correctness of some of the experiments, in the given order.

        Raises:
            UserError: If an experiment has no results of single documents.
        """
        numbers = {name: number for number, name in enumerate(self.experiments)}
        if absent := [name for name in experiments if name not in numbers]:
            raise UserError(f"experiment {absent[0]} has no results of single documents")
        rows = [numbers[name] for name in experiments]
        tasks = tuple(replace(task, correct=task.correct[rows]) for task in self.tasks)
        return replace(self, experiments=tuple(experiments), tasks=tasks)


def correctness(
    samples: Iterable[tuple[str, pd.DataFrame]],
    *,
    acc_norm_tasks: Collection[str],
    groups: Mapping[str, str] | None = None,
) -> Correctness:
    """Determine which documents each experiment answered correctly.

    Args:
        samples: Name and samples table (`espalier.tables.Samples`) of each experiment. Pass an iterator to have one
            table in memory at a time.
        acc_norm_tasks: Tasks for which acc_norm enters the mean accuracy. For all other tasks, acc does.
        groups: Group of each task that belongs to a group. Other tasks are left out of the mapping.

    Raises:
        UserError: If the experiments were evaluated on different documents, a name is given twice, a table is invalid,
            or there is no experiment.
    """
    names: list[str] = []
    rows: list[BoolArray] = []
    layout: _Layout | None = None
    for name, frame in samples:
        if name in names:
            raise UserError(f"experiment {name} was given twice")
        columns = _read_columns(frame, name)
        if layout is None:
            layout = _Layout.of(columns, name)
        rows.append(layout.is_correct(columns, name, acc_norm_tasks))
        names.append(name)
    if layout is None:
        raise UserError("no experiment with results of single documents; evaluate at least one")
    matrix = np.stack(rows)
    parts = np.split(matrix, np.cumsum(layout.n_documents)[:-1], axis=1)
    groups = groups or {}
    weights = _task_weights(layout.tasks, layout.n_documents, groups)
    tasks = tuple(
        TaskDocuments(task, weight, part, groups.get(task))
        for task, weight, part in zip(layout.tasks, weights, parts, strict=True)
    )
    return Correctness(tuple(names), tasks, layout.fingerprint)


def check_means(results: Correctness, acc_mean: Mapping[str, float]) -> None:
    """Check that the mean accuracies of the experiments table follow from the documents.

    Args:
        results: Correctness of the experiments.
        acc_mean: Mean accuracy of each experiment in the experiments table.

    Raises:
        UserError: If a mean accuracy is missing, or differs by more than rounding.
    """
    for name, computed in zip(results.experiments, results.acc_mean, strict=True):
        tabulated = acc_mean.get(name)
        if tabulated is None or not abs(computed - tabulated) <= 1e-9:
            raise UserError(
                f"experiment {name}: its documents give acc_mean {computed:.6f}, the table says {tabulated};"
                " evaluate it again"
            )


def _task_weights(tasks: tuple[str, ...], n_documents: tuple[int, ...], groups: Mapping[str, str]) -> list[float]:
    reported = [groups.get(task, task) for task in tasks]
    sizes: dict[str, int] = {}
    for name, n in zip(reported, n_documents, strict=True):
        sizes[name] = sizes.get(name, 0) + n
    return [n / sizes[name] / len(sizes) for name, n in zip(reported, n_documents, strict=True)]


@dataclass(frozen=True)
class _Columns:
    """Columns of one samples table as arrays. `task` indexes `tasks`, which are in order of appearance."""

    tasks: tuple[str, ...]
    task: IntArray
    doc_id: IntArray
    choice: IntArray
    gold: BoolArray
    n_chars: FloatArray
    loglikelihood: FloatArray


def _read_columns(frame: pd.DataFrame, name: str) -> _Columns:
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise UserError(f"samples of experiment {name}: no column {', '.join(missing)}; evaluate it again")
    if frame.empty:
        raise UserError(f"samples of experiment {name}: no document; evaluate it again")
    codes, tasks = pd.factorize(frame["task"])
    loglikelihood = frame["loglikelihood"].to_numpy(dtype=np.float64)
    if np.isnan(loglikelihood).any() or (codes < 0).any():
        raise UserError(f"samples of experiment {name}: a task or log-likelihood is missing; evaluate it again")
    return _Columns(
        tasks=tuple(map(str, tasks)),
        task=codes.astype(np.int64),
        doc_id=frame["doc_id"].to_numpy(dtype=np.int64),
        choice=frame["choice"].to_numpy(dtype=np.int64),
        gold=frame["gold"].to_numpy(dtype=np.bool_),
        n_chars=frame["n_chars"].to_numpy(dtype=np.float64),
        loglikelihood=loglikelihood,
    )


@dataclass(frozen=True)
class _Layout:
    """Documents of the first experiment. All other experiments must have the same documents.

    `order` sorts the rows of `columns` (one row per choice) by task, document and choice. `document` is the number of
    the document of each sorted row, counted over all tasks.
    """

    first: str
    columns: _Columns
    order: IntArray
    document: IntArray
    gold: BoolArray  # (n_documents, largest number of choices)
    n_documents: tuple[int, ...]
    fingerprint: str

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.columns.tasks

    @classmethod
    def of(cls, columns: _Columns, name: str) -> _Layout:
        order = np.lexsort((columns.choice, columns.doc_id, columns.task))
        task, doc_id, choice = (a[order] for a in (columns.task, columns.doc_id, columns.choice))
        starts = np.r_[True, (np.diff(task) != 0) | (np.diff(doc_id) != 0)]
        document = np.cumsum(starts) - 1
        if not np.array_equal(choice, np.arange(len(choice)) - np.flatnonzero(starts)[document]):
            raise UserError(f"samples of experiment {name}: the choices of a document are not 0, 1, 2, ... once each")
        gold = np.zeros((int(document[-1]) + 1, int(choice.max()) + 1), dtype=np.bool_)
        gold[document, choice] = columns.gold[order]
        n_documents = tuple(np.bincount(task[starts], minlength=len(columns.tasks)).tolist())
        content = hashlib.sha256(repr(columns.tasks).encode())
        for array in (task, doc_id, choice, columns.gold[order]):
            content.update(np.ascontiguousarray(array).tobytes())
        return cls(name, columns, order, document, gold, n_documents, content.hexdigest())

    def is_correct(self, columns: _Columns, name: str, acc_norm_tasks: Collection[str]) -> BoolArray:
        """Return whether one experiment answered each document correctly, (n_documents,)."""
        order = self._order_of(columns, name)
        choice = self.columns.choice[self.order]
        normalised = np.isin(self.columns.task, [k for k, task in enumerate(self.tasks) if task in acc_norm_tasks])
        score = columns.loglikelihood[order]
        with np.errstate(divide="ignore", invalid="ignore"):  # lm-eval also divides by 0 for an empty choice
            score = np.where(normalised[self.order], score / columns.n_chars[order], score)
        # Documents with fewer choices are padded with -inf at the end. argmax returns the first of equal values, so it
        # never returns the padding.
        table = np.full(self.gold.shape, -np.inf)
        table[self.document, choice] = score
        answer = table.argmax(axis=1)
        return np.asarray(self.gold[np.arange(len(answer)), answer], dtype=np.bool_)

    def _order_of(self, columns: _Columns, name: str) -> IntArray:
        """Return the row order that sorts another experiment's table like the table of the first experiment."""
        reference = self.columns
        if columns is reference:
            return self.order
        for task in sorted(set(reference.tasks) ^ set(columns.tasks)):
            has, lacks = (self.first, name) if task in reference.tasks else (name, self.first)
            raise UserError(f"experiments {has} and {lacks} were evaluated on different tasks: {lacks} has no {task}")
        number = np.array([reference.tasks.index(task) for task in columns.tasks])[columns.task]
        order = self.order
        expected, actual = _row_contents(reference.task, reference, order), _row_contents(number, columns, order)
        if expected is None or actual is None or not np.array_equal(expected, actual):
            order = np.lexsort((columns.choice, columns.doc_id, number))
            actual = _row_contents(number, columns, order)
        if expected is None or actual is None or not np.array_equal(expected, actual):
            raise UserError(
                f"experiments {self.first} and {name} were evaluated on different documents"
                f"{_describe_first_difference(self.tasks, expected, actual)}; evaluate both with one protocol"
            )
        return order


def _row_contents(task: IntArray, columns: _Columns, order: IntArray) -> IntArray | None:
    """Return task, document, choice, gold and length of each sorted row, (5, n_rows); None if the lengths differ."""
    if len(order) != len(task):
        return None
    return np.stack([task, columns.doc_id, columns.choice, columns.gold, columns.n_chars.astype(np.int64)])[:, order]


def _describe_first_difference(tasks: tuple[str, ...], expected: IntArray | None, actual: IntArray | None) -> str:
    if expected is None or actual is None:
        return ""
    n_common = min(expected.shape[1], actual.shape[1])
    differs = np.r_[(expected[:, :n_common] != actual[:, :n_common]).any(axis=0), True]
    row, longer = int(np.argmax(differs)), max(expected, actual, key=lambda contents: contents.shape[1])
    return f" (first difference: task {tasks[longer[0, row]]}, document {longer[1, row]})"
