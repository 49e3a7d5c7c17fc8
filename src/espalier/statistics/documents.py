"""Which documents each experiment got right: the matrix that every uncertainty is computed from.

A document counts as lm-eval counts it: the choice with the largest log-likelihood (`acc`), or with the largest
log-likelihood per character (`acc_norm`), the first of equal ones, must be a right one.

acc_mean = sum over tasks of weight(task) * mean over its documents of correct;  weight = 1 / number of tasks

A group of lm-eval (`groups`) is one task whose value is the mean over all documents of its members: a member's weight
is its share of the group's documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from espalier.errors import UserError
from espalier.statistics.checks import BoolArray, FloatArray, IntArray

COLUMNS = ("task", "doc_id", "choice", "gold", "loglikelihood", "n_chars")


@dataclass(frozen=True)
class TaskDocuments:
    """The documents of one task.

    Attributes:
        task: Name of the task.
        weight: Its share in the mean accuracy; all weights sum to 1.
        correct: Which experiment got which document right, (n_experiments, n_documents).
    """

    task: str
    weight: float
    correct: BoolArray

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
        """Standard error of each accuracy as lm-eval's, sqrt(p (1 - p) / (n - 1)); None with fewer than 2 documents."""
        if self.n_documents < 2:
            return None
        p = self.accuracy
        return np.sqrt(p * (1 - p) / (self.n_documents - 1))


@dataclass(frozen=True)
class Correctness:
    """What several experiments got right on the same documents.

    Attributes:
        experiments: Their names, in the order of all arrays.
        tasks: The tasks, in the order of the samples.
        fingerprint: Equal for equal documents, in whatever study.
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
        """Documents of all tasks."""
        return sum(task.n_documents for task in self.tasks)

    def select(self, experiments: Sequence[str]) -> Correctness:
        """Keep some experiments, in the given order.

        Raises:
            UserError: If one is not there.
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
    """Judge every document of every experiment.

    Args:
        samples: Name and per-document results (`espalier.tables.Samples`) of each experiment; frames may be read one by
            one, none is kept.
        acc_norm_tasks: Tasks whose acc_norm enters the mean; of the others acc does.
        groups: For each task that is part of a group, the group; tasks not named stand for themselves.

    Raises:
        UserError: If experiments were evaluated on different documents, a name is there twice, or a table is unusable.
    """
    names: list[str] = []
    rows: list[BoolArray] = []
    layout: _Layout | None = None
    for name, frame in samples:
        if name in names:
            raise UserError(f"experiment {name} was given twice")
        columns = _columns(frame, name)
        if layout is None:
            layout = _Layout.of(columns, name)
        rows.append(layout.judge(columns, name, acc_norm_tasks))
        names.append(name)
    if layout is None:
        raise UserError("no experiment with results of single documents; evaluate at least one")
    matrix = np.stack(rows)
    parts = np.split(matrix, np.cumsum(layout.n_documents)[:-1], axis=1)
    weights = _weights(layout.tasks, layout.n_documents, groups or {})
    tasks = tuple(TaskDocuments(*one) for one in zip(layout.tasks, weights, parts, strict=True))
    return Correctness(tuple(names), tasks, layout.fingerprint)


def check_means(of: Correctness, acc_mean: Mapping[str, float], *, tolerance: float = 1e-9) -> None:
    """Compare with the mean accuracies of the tables, which must follow from the same documents by the same rule.

    Raises:
        UserError: If one differs.
    """
    for name, ours in zip(of.experiments, of.acc_mean, strict=True):
        theirs = acc_mean.get(name)
        if theirs is None or not abs(ours - theirs) <= tolerance:
            raise UserError(
                f"experiment {name}: its documents give acc_mean {ours:.6f}, the table says {theirs}; evaluate it again"
            )


def _weights(tasks: tuple[str, ...], n_documents: tuple[int, ...], groups: Mapping[str, str]) -> list[float]:
    reported = [groups.get(task, task) for task in tasks]
    sizes: dict[str, int] = {}
    for name, n in zip(reported, n_documents, strict=True):
        sizes[name] = sizes.get(name, 0) + n
    return [n / sizes[name] / len(sizes) for name, n in zip(reported, n_documents, strict=True)]


@dataclass(frozen=True)
class _Columns:
    """Columns of one samples table, as arrays, and its tasks as numbers in order of appearance."""

    tasks: tuple[str, ...]
    task: IntArray
    doc_id: IntArray
    choice: IntArray
    gold: BoolArray
    n_chars: FloatArray
    loglikelihood: FloatArray


def _columns(frame: pd.DataFrame, name: str) -> _Columns:
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
    """Documents of the first experiment, sorted by task, document and choice; the others must have the same.

    Arrays are over rows (choices) unless said otherwise. `document` numbers the documents over all tasks.
    """

    first: str
    columns: _Columns
    order: IntArray
    document: IntArray
    gold: BoolArray  # (n_documents, most choices)
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

    def judge(self, columns: _Columns, name: str, acc_norm_tasks: Collection[str]) -> BoolArray:
        """Judge each document of one experiment, (n_documents,)."""
        order = self._order_of(columns, name)
        choice = self.columns.choice[self.order]
        normalised = np.isin(self.columns.task, [k for k, task in enumerate(self.tasks) if task in acc_norm_tasks])
        score = columns.loglikelihood[order]
        with np.errstate(divide="ignore", invalid="ignore"):  # an empty choice, as in lm-eval
            score = np.where(normalised[self.order], score / columns.n_chars[order], score)
        # Places of choices that a document does not have come last, so that the first of equal ones is a real one.
        table = np.full(self.gold.shape, -np.inf)
        table[self.document, choice] = score
        answer = table.argmax(axis=1)
        return np.asarray(self.gold[np.arange(len(answer)), answer], dtype=np.bool_)

    def _order_of(self, columns: _Columns, name: str) -> IntArray:
        """Return the rows of another experiment in the order of the first one's sorted rows."""
        ours = self.columns
        if columns is ours:
            return self.order
        for task in sorted(set(ours.tasks) ^ set(columns.tasks)):
            has, lacks = (self.first, name) if task in ours.tasks else (name, self.first)
            raise UserError(f"experiments {has} and {lacks} were evaluated on different tasks: {lacks} has no {task}")
        number = np.array([ours.tasks.index(task) for task in columns.tasks])[columns.task]
        order = self.order
        mine, theirs = _keys(ours.task, ours, order), _keys(number, columns, order)
        if mine is None or theirs is None or not np.array_equal(mine, theirs):
            order = np.lexsort((columns.choice, columns.doc_id, number))
            theirs = _keys(number, columns, order)
        if mine is None or theirs is None or not np.array_equal(mine, theirs):
            raise UserError(
                f"experiments {self.first} and {name} were evaluated on different documents"
                f"{_first_difference(self.tasks, mine, theirs)}; evaluate both with one protocol"
            )
        return order


def _keys(task: IntArray, columns: _Columns, order: IntArray) -> IntArray | None:
    """Return what names a row and what it asks, (5, n_rows); None if the order is of another length."""
    if len(order) != len(task):
        return None
    return np.stack([task, columns.doc_id, columns.choice, columns.gold, columns.n_chars.astype(np.int64)])[:, order]


def _first_difference(tasks: tuple[str, ...], mine: IntArray | None, theirs: IntArray | None) -> str:
    if mine is None or theirs is None:
        return ""
    both = min(mine.shape[1], theirs.shape[1])
    differs = np.r_[(mine[:, :both] != theirs[:, :both]).any(axis=0), True]
    row, longer = int(np.argmax(differs)), max(mine, theirs, key=lambda keys: keys.shape[1])
    return f" (first difference: task {tasks[longer[0, row]]}, document {longer[1, row]})"
