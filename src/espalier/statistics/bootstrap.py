"""Joint bootstrap over documents: accuracies of all experiments on resampled documents.

In one draw, the n documents of each task are drawn n times with replacement. Document d is drawn w_d times, so
w = (w_1, ..., w_n) is multinomial with equal probabilities.

accuracy*_i = sum over tasks of weight(task) * (sum over its documents of w_d * correct_id) / n

All experiments share the weights, so an effect of the documents that is the same for all experiments cancels in their
differences. The weights of a task depend only on the seed, the name of the task and its number of documents. The draws
of two models that were evaluated on the same documents are therefore joint as well (Efron and Tibshirani 1993,
chapters 6, 13 and 8.5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.statistics.correctness import Correctness, TaskDocuments
from espalier.statistics.validation import FloatArray

N_DRAWS = 10_000
CONFIDENCE_LEVEL = 0.95
_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Bootstrap:
    """Mean accuracies of experiments and their joint bootstrap draws.

    Attributes:
        experiments: Names of the experiments, in the order of all arrays.
        accuracy: Mean accuracy of each experiment, (n_experiments,).
        draws: Mean accuracy of each experiment in each draw, (n_draws, n_experiments).
        source: `documents`, or `counts` if there are no results of single documents (`espalier.statistics.counts`).
        origin: Identifies the documents or counts, the seed and the number of draws. Draws from documents are joint if
            their origins are equal.
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

    def intervals(self, level: float = CONFIDENCE_LEVEL) -> FloatArray:
        """Compute the percentile interval of each accuracy: lower and upper ends, (n_experiments, 2)."""
        return percentile_interval(self.draws, level)

    def select(self, experiments: Sequence[str]) -> Bootstrap:
        """Return the draws of some of the experiments, in the given order.

        Raises:
            UserError: If an experiment has no draws.
        """
        column_of = {name: column for column, name in enumerate(self.experiments)}
        if absent := [name for name in experiments if name not in column_of]:
            raise UserError(f"experiment {absent[0]} has no bootstrap draws")
        columns = [column_of[name] for name in experiments]
        return replace(
            self, experiments=tuple(experiments), accuracy=self.accuracy[columns], draws=self.draws[:, columns]
        )

    def averaged(self, labels: Sequence[Hashable]) -> Bootstrap:
        """Average the experiments that share a label, such as their method.

        Args:
            labels: Label of each experiment. The labels become the names, in order of appearance.

        Raises:
            ValueError: If the number of labels is not the number of experiments.
        """
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


def bootstrap(correctness: Correctness, *, seed: int, n_draws: int = N_DRAWS) -> Bootstrap:
    """Resample the documents and compute the mean accuracies of all experiments in each draw.

    Weights are computed in chunks, so that the function needs only about 200 MB of memory besides the result.

    Args:
        correctness: Correctness of the experiments.
        seed: Seed of the draws. Use the same seed for all models, so that their draws are joint.
        n_draws: Number of draws.

    Raises:
        UserError: If a task has fewer than two documents. Resampling one document shows no variation.
    """
    small = [task.task for task in correctness.tasks if task.n_documents < 2]
    if small:
        raise UserError(f"task {small[0]} has 1 document; intervals need at least 2 (evaluation.limit)")
    draws = np.zeros((n_draws, len(correctness.experiments)))
    for task in correctness.tasks:
        # float32 halves the time of the product. Sums of whole numbers are exact in float32 up to 2**24.
        right = np.ascontiguousarray(task.correct.T, dtype=np.float32)  # (n_documents, n_experiments)
        for rows, weights in _document_weights(task, seed, n_draws):
            draws[rows] += task.weight * ((weights @ right).astype(np.float64) / task.n_documents)
    origin = f"{correctness.fingerprint} seed {seed} draws {n_draws}"
    return Bootstrap(correctness.experiments, correctness.acc_mean, draws, "documents", origin)


def percentile_interval(draws: FloatArray, level: float = CONFIDENCE_LEVEL) -> FloatArray:
    """Compute percentile intervals, which leave out (1 - level) / 2 of the draws at each end.

    Args:
        draws: Bootstrap draws, (n_draws, ...).
        level: Confidence level of the intervals.

    Returns:
        Lower and upper ends, (..., 2).
    """
    ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.moveaxis(ends, 0, -1)


def _document_weights(task: TaskDocuments, seed: int, n_draws: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the rows and the multinomial weights, (n_rows, n_documents), of some draws at a time for one task."""
    n = task.n_documents
    generator = np.random.default_rng([seed, *task.task.encode()])
    step = max(1, _CHUNK_BYTES // (8 * n))
    for start in range(0, n_draws, step):
        rows = slice(start, min(start + step, n_draws))
        drawn = generator.integers(0, n, size=(rows.stop - start, n))
        weights = np.empty(drawn.shape, dtype=np.float32)
        # Counting one draw at a time keeps the counters in the CPU cache: 50 times faster than Generator.multinomial.
        for row, documents in zip(weights, drawn, strict=True):
            row[:] = np.bincount(documents, minlength=n)
        yield rows, weights
