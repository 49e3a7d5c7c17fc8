"""Joint bootstrap over documents: what the accuracies of all experiments would be on other documents of the same kind.

In one draw each task's n documents are drawn n times with replacement; w_d says how often document d was drawn, so that
w = (w_1, ..., w_n) is multinomial with equal probabilities.

accuracy*_i = sum over tasks of weight(task) * (sum over its documents of w_d * correct_id) / n

All experiments share the weights, so that what the choice of documents does to all of them alike cancels in their
differences. The weights of a task depend on the seed, its name and its number of documents alone: two models evaluated
on the same documents have joint draws as well (Efron and Tibshirani 1993, chapters 6, 13 and 8.5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.statistics.checks import FloatArray
from espalier.statistics.documents import Correctness, TaskDocuments

N_DRAWS = 10_000
LEVEL = 0.95
_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Bootstrap:
    """Accuracies and their joint draws.

    Attributes:
        experiments: Names, in the order of all arrays.
        accuracy: Mean accuracy of each experiment, (n_experiments,).
        draws: The same in each draw, (n_draws, n_experiments).
        source: `documents`, or `counts` where there were no results of single documents (`espalier.statistics.counts`).
        origin: Equal for draws that are joint: the documents and the seed.
    """

    experiments: tuple[str, ...]
    accuracy: FloatArray
    draws: FloatArray
    source: Literal["documents", "counts"]
    origin: str

    @property
    def stderr(self) -> FloatArray:
        """Standard error of each accuracy, (n_experiments,)."""
        return np.asarray(self.draws.std(axis=0, ddof=1), dtype=np.float64)

    @property
    def covariance(self) -> FloatArray:
        """Joint covariance of the accuracies, (n_experiments, n_experiments)."""
        return np.atleast_2d(np.cov(self.draws, rowvar=False))

    def intervals(self, level: float = LEVEL) -> FloatArray:
        """Percentile interval of each accuracy: lower and upper ends, (n_experiments, 2)."""
        return percentile_interval(self.draws, level)

    def select(self, experiments: Sequence[str]) -> Bootstrap:
        """Keep some experiments, in the given order.

        Raises:
            UserError: If one is not there.
        """
        numbers = {name: number for number, name in enumerate(self.experiments)}
        if absent := [name for name in experiments if name not in numbers]:
            raise UserError(f"experiment {absent[0]} has no bootstrap draws")
        columns = [numbers[name] for name in experiments]
        return replace(
            self, experiments=tuple(experiments), accuracy=self.accuracy[columns], draws=self.draws[:, columns]
        )

    def averaged(self, labels: Sequence[Hashable]) -> Bootstrap:
        """Average experiments that share a label (of a method, say); labels become names, in order of appearance."""
        if len(labels) != len(self.experiments):
            raise ValueError(f"{len(labels)} labels for {len(self.experiments)} experiments")
        names = list(dict.fromkeys(labels))
        member = np.array([[label == name for name in names] for label in labels], dtype=np.float64)
        member /= member.sum(axis=0)
        return replace(
            self,
            experiments=tuple(str(name) for name in names),
            accuracy=self.accuracy @ member,
            draws=self.draws @ member,
        )


def bootstrap(of: Correctness, *, seed: int, n_draws: int = N_DRAWS) -> Bootstrap:
    """Draw documents and compute the mean accuracies of all experiments in each draw.

    Memory beside the result stays under about 200 MB, whatever the number of documents.

    Raises:
        UserError: If a task has fewer than two documents: drawing one says nothing about others.
    """
    small = [task.task for task in of.tasks if task.n_documents < 2]
    if small:
        raise UserError(f"task {small[0]} has 1 document; intervals need at least 2 (evaluation.limit)")
    draws = np.zeros((n_draws, len(of.experiments)))
    for task in of.tasks:
        # Sums of whole numbers are exact in float32 up to 2**24, which halves the time of the product.
        right = np.ascontiguousarray(task.correct.T, dtype=np.float32)  # (n_documents, n_experiments)
        for rows, weights in _weights(task, seed, n_draws):
            draws[rows] += task.weight * ((weights @ right).astype(np.float64) / task.n_documents)
    return Bootstrap(of.experiments, of.acc_mean, draws, "documents", f"{of.fingerprint} seed {seed} draws {n_draws}")


def percentile_interval(draws: FloatArray, level: float = LEVEL) -> FloatArray:
    """Cut off (1 - level) / 2 of the draws at each end; (n_draws, ...) to (..., 2)."""
    ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.moveaxis(ends, 0, -1)


def _weights(task: TaskDocuments, seed: int, n_draws: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield multinomial weights of a task's documents, some draws at a time, (n_rows, n_documents)."""
    n = task.n_documents
    generator = np.random.default_rng([seed, *task.task.encode()])
    step = max(1, _CHUNK_BYTES // (8 * n))
    for start in range(0, n_draws, step):
        rows = slice(start, min(start + step, n_draws))
        drawn = generator.integers(0, n, size=(rows.stop - start, n))
        weights = np.empty(drawn.shape, dtype=np.float32)
        # Counting draws one by one keeps the counters in the cache: 50 times faster than Generator.multinomial.
        for row, documents in zip(weights, drawn, strict=True):
            row[:] = np.bincount(documents, minlength=n)
        yield rows, weights
