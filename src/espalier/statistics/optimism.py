"""Selection bias ("winner's curse") of the best experiment's accuracy, estimated in two ways.

Shrinkage (empirical Bayes). It uses deviations from the mean over the E experiments, so errors that all experiments
share cancel.

noise variance    = sum_i Var*[error_i - mean_j error_j] / (E - 1),   error = theta* - theta over the joint draws
observed variance = sum_i (theta_i - mean_j theta_j)**2 / (E - 1)
noise share       = noise variance / observed variance, at most 1
optimism          = noise share * (theta_best - mean_j theta_j)

Split half. The documents of each task are split at random into two halves. The best experiment of one half is scored on
the other half.

optimism at half the documents = mean over splits of (its accuracy where it was chosen - its accuracy on the other half)

A choice from half of the documents is noisier, so this value is larger than the optimism of the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.statistics.correctness import Correctness, TaskDocuments
from espalier.statistics.validation import TIE, BoolArray, FloatArray, accuracy_and_draws

N_SPLITS = 1_000
_VALUES_PER_CHUNK = 8_000_000


@dataclass(frozen=True)
class Shrinkage:
    """The shrinkage estimate of the optimism.

    Attributes:
        best: Accuracy of the best experiment.
        mean: Mean accuracy over experiments.
        noise_variance: Variance between experiments that the sampling of documents explains; None for one experiment.
        observed_variance: Variance of the observed accuracies; None for one experiment.
        noise_share: `noise_variance` / `observed_variance`, at most 1.
        optimism: Expected amount by which the observed accuracy of the best experiment exceeds its true accuracy.
        corrected: `best` - `optimism`.
        reason: Why a value is None; None if all values are defined.
    """

    best: float
    mean: float
    noise_variance: float | None
    observed_variance: float | None
    noise_share: float | None
    optimism: float | None
    corrected: float | None
    reason: Message | None


@dataclass(frozen=True)
class SplitHalf:
    """The split-half estimate of the optimism. All values refer to half the documents.

    Attributes:
        n_splits: Number of random splits. The choice is made once on each half of a split.
        optimism: `chosen_on` - `scored_on`.
        optimism_std: Standard deviation of the optimism over splits.
        chosen_on: Mean accuracy of the chosen experiment on the half on which it was chosen.
        scored_on: Mean accuracy of the chosen experiment on the other half.
        chosen_share: Share of choices of each experiment, (n_experiments,). The shares sum to 1; experiments that tie
            get equal shares of a choice.
    """

    n_splits: int
    optimism: float
    optimism_std: float
    chosen_on: float
    scored_on: float
    chosen_share: FloatArray


def shrinkage(accuracy: Any, draws: Any) -> Shrinkage:
    """Estimate the optimism of the best experiment by shrinkage.

    Args:
        accuracy: Observed accuracies, (n_experiments,).
        draws: Joint bootstrap draws, (n_draws, n_experiments).

    Raises:
        UserError: If a value is missing or infinite, or there is no experiment.
    """
    theta, drawn = accuracy_and_draws(accuracy, draws)
    best, mean = float(theta.max()), float(theta.mean())
    if theta.size < 2:
        reason = Message("too_few", {"n": 1, "needed": 2})
        return Shrinkage(best, mean, None, None, None, None, None, reason)
    deviation = drawn - drawn.mean(axis=1, keepdims=True)
    noise = float(deviation.var(axis=0, ddof=1).sum() / (theta.size - 1))
    if np.ptp(theta) <= TIE:
        return Shrinkage(best, mean, noise, 0.0, None, None, None, Message("no_spread"))
    observed = float(theta.var(ddof=1))
    share = min(1.0, noise / observed)
    optimism = share * (best - mean)
    return Shrinkage(best, mean, noise, observed, share, optimism, best - optimism, None)


def split_half(correctness: Correctness, *, seed: int, n_splits: int = N_SPLITS) -> SplitHalf:
    """Choose the best experiment on one half of the documents and score it on the other half, for many random splits.

    Args:
        correctness: Correctness of the candidates; leave out the unpruned model and the controls.
        seed: Seed of the splits.
        n_splits: Number of splits.

    Raises:
        UserError: If a task has fewer than two documents.
    """
    halves = np.zeros((2, n_splits, len(correctness.experiments)))
    for task in correctness.tasks:
        halves += task.weight * _halves(task, seed, n_splits)
    chosen = (halves >= halves.max(axis=2, keepdims=True) - TIE).astype(np.float64)
    chosen /= chosen.sum(axis=2, keepdims=True)
    chosen_on, scored_on = ((chosen * values).sum(axis=2) for values in (halves, halves[::-1]))
    optimism = (chosen_on - scored_on).mean(axis=0)  # (n_splits,)
    return SplitHalf(
        n_splits=n_splits,
        optimism=float(optimism.mean()),
        optimism_std=float(optimism.std(ddof=1)) if n_splits > 1 else 0.0,
        chosen_on=float(chosen_on.mean()),
        scored_on=float(scored_on.mean()),
        chosen_share=chosen.mean(axis=(0, 1)),
    )


def _halves(task: TaskDocuments, seed: int, n_splits: int) -> FloatArray:
    """Return a task's accuracy on both halves of random splits, (2, n_splits, n_experiments)."""
    n = task.n_documents
    if n < 2:
        raise UserError(f"task {task.task} has 1 document; it cannot be split in two (evaluation.limit)")
    generator = np.random.default_rng([seed, *f"{task.task} halves".encode()])
    right = np.ascontiguousarray(task.correct.T, dtype=np.float32)
    counts = [
        _random_halves(generator, min(_VALUES_PER_CHUNK // n + 1, n_splits - start), n).astype(np.float32) @ right
        for start in range(0, n_splits, _VALUES_PER_CHUNK // n + 1)
    ]
    first = np.concatenate(counts).astype(np.float64)
    return np.stack([first / (n // 2), (task.correct.sum(axis=1) - first) / (n - n // 2)])


def _random_halves(generator: np.random.Generator, n_rows: int, n: int) -> BoolArray:
    """Return a mask of n // 2 random documents in each row, (n_rows, n)."""
    keys = generator.random((n_rows, n))
    cut = np.partition(keys, n // 2, axis=1)[:, n // 2, None]
    return np.asarray(keys < cut, dtype=np.bool_)
