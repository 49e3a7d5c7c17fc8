"""Uncertainty from numbers of documents alone, for imported results without results of single documents.

stderr(task)     = sqrt(p (1 - p) / (n - 1))                                            as lm-eval's
stderr(acc_mean) = sqrt(sum over tasks of (weight(task) * stderr(task))**2)
interval         = acc_mean -+ z * stderr, cut at 0 and 1

Which documents were right is unknown, so the draws treat experiments as if each had answered documents of its own:
differences look less certain than they are wherever experiments tend to be right on the same documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from espalier.errors import UserError
from espalier.statistics.bootstrap import LEVEL, N_DRAWS, Bootstrap
from espalier.statistics.checks import FloatArray, finite


@dataclass(frozen=True)
class CountIntervals:
    """Intervals from counts.

    Attributes:
        accuracy: Mean accuracy, (n_experiments,).
        stderr: Its standard error, (n_experiments,).
        task_stderr: Standard errors of the tasks, (n_experiments, n_tasks).
        intervals: Lower and upper ends, (n_experiments, 2).
        from_counts: Always true; intervals of `Bootstrap` come from documents.
    """

    accuracy: FloatArray
    stderr: FloatArray
    task_stderr: FloatArray
    intervals: FloatArray
    from_counts: bool = True


def intervals_from_counts(accuracy: Any, n_documents: Any, *, level: float = LEVEL) -> CountIntervals:
    """Compute intervals of the unweighted mean over tasks.

    Args:
        accuracy: Accuracy of each task, (n_experiments, n_tasks).
        n_documents: Documents of each task, (n_tasks,) or (n_experiments, n_tasks).
        level: Level of the intervals.

    Raises:
        UserError: If a value is missing, outside 0 to 1, or of fewer than two documents.
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
    """Draw binomial counts of right answers, each experiment on documents of its own.

    Args:
        experiments: Their names.
        accuracy: Accuracy of each task, (n_experiments, n_tasks).
        n_documents: Documents of each task, (n_tasks,) or (n_experiments, n_tasks).
        model: Name of the model: experiments of two models draw apart.
        seed: Seed of the draws.
        n_draws: Number of draws.

    Returns:
        Draws whose `source` is `counts`.

    Raises:
        UserError: As `intervals_from_counts`.
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
    p = finite(accuracy, "task accuracies", ndim=2)
    if not p.size:
        raise UserError("no task accuracy was given; at least one experiment and one task are needed")
    if ((p < 0) | (p > 1)).any():
        raise UserError(f"task accuracies go from {p.min():g} to {p.max():g}; they must lie between 0 and 1")
    n = np.broadcast_to(finite(n_documents, "numbers of documents", ndim=np.ndim(n_documents)), p.shape)
    if (n < 2).any():
        raise UserError(f"a task has {n.min():g} documents; intervals need at least 2 (evaluation.limit)")
    return p, n
