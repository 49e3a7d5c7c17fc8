"""Uncertainty from the numbers of documents, for imported results without results of single documents.

stderr(task)     = sqrt(p (1 - p) / (n - 1))                                            as in lm-eval
stderr(acc_mean) = sqrt(sum over tasks of (weight(task) * stderr(task))**2)
interval         = acc_mean -+ z * stderr, cut at 0 and 1

It is unknown which documents were answered correctly. The draws therefore treat the experiments as if they had been
evaluated on different documents. If experiments tend to be correct on the same documents, their differences look less
certain than they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from espalier.errors import UserError
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, N_DRAWS, Bootstrap
from espalier.statistics.validation import FloatArray, finite_array


@dataclass(frozen=True)
class CountIntervals:
    """Intervals computed from numbers of documents.

    Attributes:
        accuracy: Mean accuracy of each experiment, (n_experiments,).
        stderr: Standard error of each mean accuracy, (n_experiments,).
        task_stderr: Standard error of each task's accuracy, (n_experiments, n_tasks).
        intervals: Lower and upper ends, (n_experiments, 2).
        from_counts: Always true. It marks intervals that do not come from single documents.
    """

    accuracy: FloatArray
    stderr: FloatArray
    task_stderr: FloatArray
    intervals: FloatArray
    from_counts: bool = True


def intervals_from_counts(accuracy: Any, n_documents: Any, *, level: float = CONFIDENCE_LEVEL) -> CountIntervals:
    """Compute intervals of the unweighted mean accuracy over tasks.

    Args:
        accuracy: Accuracy of each task, (n_experiments, n_tasks).
        n_documents: Number of documents of each task, (n_tasks,) or (n_experiments, n_tasks).
        level: Confidence level of the intervals.

    Raises:
        UserError: If there is no accuracy, an accuracy is missing or outside 0 to 1, or a task has fewer than two
            documents.
    """
    p, n = _accuracy_and_counts(accuracy, n_documents)
    task_stderr = np.sqrt(p * (1 - p) / (n - 1))
    mean = p.mean(axis=1)
    stderr = np.sqrt((task_stderr**2).sum(axis=1)) / p.shape[1]
    reach = float(stats.norm.ppf((1 + level) / 2)) * stderr
    ends = np.clip(np.stack([mean - reach, mean + reach], axis=1), 0, 1)
    return CountIntervals(mean, stderr, task_stderr, ends)


def draw_from_counts(
    experiments: Sequence[str], accuracy: Any, n_documents: Any, *, model: str, seed: int, n_draws: int = N_DRAWS
) -> Bootstrap:
    """Draw the numbers of correct documents from binomial distributions, independently for each experiment.

    Args:
        experiments: Names of the experiments.
        accuracy: Accuracy of each task, (n_experiments, n_tasks).
        n_documents: Number of documents of each task, (n_tasks,) or (n_experiments, n_tasks).
        model: Name of the model. It is part of the seed, so that the draws of two models are independent.
        seed: Seed of the draws.
        n_draws: Number of draws.

    Returns:
        Draws whose `source` is `counts`.

    Raises:
        UserError: If `intervals_from_counts` would raise it for these arrays.
        ValueError: If the number of names is not the number of experiments.
    """
    p, n = _accuracy_and_counts(accuracy, n_documents)
    if len(experiments) != len(p):
        raise ValueError(f"{len(experiments)} names for {len(p)} experiments")
    counts = np.rint(n).astype(np.int64)
    generator = np.random.default_rng([seed, *model.encode()])
    draws = np.zeros((n_draws, len(p)))
    for task in range(p.shape[1]):
        draws += generator.binomial(counts[:, task], p[:, task], size=draws.shape) / counts[:, task]
    content = hashlib.sha256(repr((model, tuple(experiments), p.tolist(), counts.tolist())).encode()).hexdigest()
    origin = f"counts {content} seed {seed} draws {n_draws}"
    return Bootstrap(tuple(experiments), p.mean(axis=1), draws / p.shape[1], "counts", origin)


def _accuracy_and_counts(accuracy: Any, n_documents: Any) -> tuple[FloatArray, FloatArray]:
    p = finite_array(accuracy, "task accuracies", ndim=2)
    if not p.size:
        raise UserError("no task accuracy was given; at least one experiment and one task are needed")
    if ((p < 0) | (p > 1)).any():
        raise UserError(f"task accuracies go from {p.min():g} to {p.max():g}; they must lie between 0 and 1")
    n = np.broadcast_to(finite_array(n_documents, "numbers of documents", ndim=np.ndim(n_documents)), p.shape)
    if (n < 2).any():
        raise UserError(f"a task has {n.min():g} documents; intervals need at least 2 (evaluation.limit)")
    return p, n
