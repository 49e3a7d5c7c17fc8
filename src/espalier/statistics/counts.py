"""Draws from the numbers of documents, for imported results without results of single documents.

correct(task)  ~ binomial(n, p)      p = accuracy of the task, n = its number of documents
acc_mean       = mean over tasks of correct(task) / n

It is unknown which documents were answered correctly. The draws therefore treat the experiments as if they had been
evaluated on different documents. If experiments tend to be correct on the same documents, their differences look less
certain than they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from espalier.errors import UserError
from espalier.statistics.bootstrap import N_DRAWS, Bootstrap
from espalier.statistics.validation import FloatArray, finite_array


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
        UserError: If there is no accuracy, an accuracy is missing or outside 0 to 1, or a task has fewer than two
            documents.
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
