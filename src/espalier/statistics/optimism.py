"""Selection bias ("winner's curse") of the best experiment's accuracy.

Shrinkage (empirical Bayes), of deviations from the mean over experiments: what documents do to all alike is out.

noise variance    = sum_i Var*[error_i - mean_j error_j] / (E - 1),   error = theta* - theta over the joint draws
observed variance = sum_i (theta_i - mean_j theta_j)**2 / (E - 1)
noise share       = noise variance / observed variance, at most 1
optimism          = noise share * (theta_best - mean_j theta_j)

Split half. Documents of every task are split in two at random; the best of one half is scored on the other.

optimism at half the documents = mean over splits of (its accuracy where it was chosen - its accuracy on the other half)

A choice from half the documents is noisier, so this is more than the optimism of the study itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.errors import UserError
from espalier.statistics.checks import TIE, BoolArray, FloatArray, accuracy_and_draws
from espalier.statistics.documents import Correctness, TaskDocuments
from espalier.statistics.messages import Message

N_SPLITS = 1_000
_CHUNK = 8_000_000


@dataclass(frozen=True)
class Shrinkage:
    """The shrinkage estimate; null values have a reason.

    Attributes:
        best: Accuracy of the best experiment.
        mean: Mean over experiments.
        noise_variance: Variance of deviations from the mean that the choice of documents explains.
        observed_variance: Variance of the observed accuracies.
        noise_share: The first over the second, between 0 and 1.
        optimism: How much better the best one probably looks than it is.
        corrected: `best` less `optimism`.
        reason: Why the last three are null, where they are.
    """

    best: float
    mean: float
    noise_variance: float
    observed_variance: float
    noise_share: float | None
    optimism: float | None
    corrected: float | None
    reason: Message | None


@dataclass(frozen=True)
class SplitHalf:
    """Choosing on one half of the documents and scoring on the other; all at half the documents.

    Attributes:
        n_splits: Random splits; each is used both ways round.
        optimism: Mean of `chosen_on` - `scored_on`.
        optimism_std: Standard deviation of that over splits.
        chosen_on: Mean accuracy of the chosen one on the half it was chosen on.
        scored_on: Its mean accuracy on the other half.
        chosen_share: How often each experiment was chosen, (n_experiments,); sums to 1, ties are shared out.
    """

    n_splits: int
    optimism: float
    optimism_std: float
    chosen_on: float
    scored_on: float
    chosen_share: FloatArray


def shrinkage(accuracy: Any, draws: Any) -> Shrinkage:
    """Estimate the winner's optimism by shrinkage.

    Args:
        accuracy: Observed accuracies, (n_experiments,).
        draws: Joint bootstrap draws, (n_draws, n_experiments).

    Raises:
        UserError: If a value is missing or there is no experiment.
    """
    theta, drawn = accuracy_and_draws(accuracy, draws)
    best, mean = float(theta.max()), float(theta.mean())
    if theta.size < 2:
        reason = Message("too_few", {"n": 1, "needed": 2})
        return Shrinkage(best, mean, 0.0, 0.0, None, None, None, reason)
    deviation = drawn - drawn.mean(axis=1, keepdims=True)
    noise = float(deviation.var(axis=0, ddof=1).sum() / (theta.size - 1))
    if np.ptp(theta) <= TIE:
        return Shrinkage(best, mean, noise, 0.0, None, None, None, Message("no_spread"))
    observed = float(theta.var(ddof=1))
    share = min(1.0, noise / observed)
    optimism = share * (best - mean)
    return Shrinkage(best, mean, noise, observed, share, optimism, best - optimism, None)


def split_half(of: Correctness, *, seed: int, n_splits: int = N_SPLITS) -> SplitHalf:
    """Choose the best experiment on half of the documents and score it on the other half, many times.

    Args:
        of: Candidates only; leave the unpruned model and controls out.
        seed: Seed of the splits.
        n_splits: Number of splits.

    Raises:
        UserError: If a task has fewer than two documents.
    """
    halves = np.zeros((2, n_splits, len(of.experiments)))
    for task in of.tasks:
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
        _random_halves(generator, min(_CHUNK // n + 1, n_splits - start), n).astype(np.float32) @ right
        for start in range(0, n_splits, _CHUNK // n + 1)
    ]
    first = np.concatenate(counts).astype(np.float64)
    return np.stack([first / (n // 2), (task.correct.sum(axis=1) - first) / (n - n // 2)])


def _random_halves(generator: np.random.Generator, n_rows: int, n: int) -> BoolArray:
    """Mark n // 2 random documents in each row, (n_rows, n)."""
    keys = generator.random((n_rows, n))
    cut = np.partition(keys, n // 2, axis=1)[:, n // 2, None]
    return np.asarray(keys < cut, dtype=np.bool_)
