"""Rank correlation of the experiments' accuracies before and after a change, such as recovery.

x_i, y_i = accuracy of experiment i before and after; over all pairs i < j
S    = sum of sign(x_i - x_j) sign(y_i - y_j);   n_x, n_y = pairs that differ in x, in y
tau  = S / sqrt(n_x n_y)                                            (Kendall's tau-b; 1: same order, -1: reversed)

The interval is given by percentiles of tau over joint bootstrap draws of both accuracies. It covers other documents.
Resampling adds noise to accuracies that are noisy already, so the interval tends to be too low.

The p value tests the hypothesis that the two orders are unrelated. For up to 7 experiments it is computed over all
orders. For more experiments scipy computes it, exactly only for up to 33 experiments without ties. With n experiments,
p is at least 2 / n!, which is 1/3 for three and 1/12 for four.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL, percentile_interval
from espalier.statistics.validation import FloatArray, finite_array, same_lengths

MIN_EXPERIMENTS = 3
MAX_EXACT_EXPERIMENTS = 7  # 5,040 orders
# Draws are stored in float32, so accuracies that differ by no more than this count as equal.
STORED_DRAWS_TIE = 1e-6
_DRAWS_PER_CHUNK = 256  # draws at a time: the pairs of 100 experiments take 10 MB


@dataclass(frozen=True)
class Ranking:
    """Agreement of two orders of the same experiments.

    Attributes:
        n: Number of experiments.
        tau: Kendall's tau-b; None if undefined.
        p: Probability of a |tau| at least this large if the orders were unrelated; None if tau is undefined.
        smallest_p: Smallest p that is possible with n experiments; None if tau is undefined.
        interval: Interval of tau over the draws; None without draws, or if tau is undefined in most draws.
        level: Confidence level of the interval.
        reason: Why `tau` is None; None if it is defined.
    """

    n: int
    tau: float | None
    p: float | None
    smallest_p: float | None
    interval: tuple[float, float] | None
    level: float
    reason: Message | None


def compare_rankings(
    before: Any, after: Any, draws: tuple[FloatArray, FloatArray] | None = None, *, level: float = CONFIDENCE_LEVEL
) -> Ranking:
    """Compare the order of the experiments before and after a change.

    Args:
        before: Accuracies before the change, (n_experiments,).
        after: Accuracies of the same experiments after the change, (n_experiments,).
        draws: Joint bootstrap draws before and after, (n_draws, n_experiments) each; None gives no interval.
        level: Confidence level of the interval.

    Raises:
        UserError: If an accuracy is missing or infinite.
        ValueError: If the lengths differ.
    """
    x, y = finite_array(before, "accuracy before"), finite_array(after, "accuracy after")
    same_lengths(before=x, after=y)
    n = len(x)
    if n < MIN_EXPERIMENTS:
        return Ranking(n, None, None, None, None, level, Message("too_few", {"n": n, "needed": MIN_EXPERIMENTS}))
    tau = float(kendall_tau_b(x[None], y[None])[0])
    if math.isnan(tau):
        return Ranking(n, None, None, None, None, level, Message("no_spread"))
    interval = None if draws is None else _tau_interval(*draws, level)
    return Ranking(n, tau, _p_value(x, y, tau), 2 / math.factorial(n), interval, level, None)


def kendall_tau_b(before: FloatArray, after: FloatArray) -> FloatArray:
    """Compute Kendall's tau-b of each row.

    Args:
        before: Accuracies before the change, (n_rows, n_experiments).
        after: Accuracies after the change, (n_rows, n_experiments).

    Returns:
        tau-b, (n_rows,); NaN if all accuracies before, or all accuracies after, are equal.
    """
    first, second = np.triu_indices(before.shape[1], k=1)
    taus = np.empty(len(before))
    for start in range(0, len(before), _DRAWS_PER_CHUNK):
        rows = slice(start, start + _DRAWS_PER_CHUNK)
        x, y = (_signs(values[rows, first] - values[rows, second]) for values in (before, after))
        with np.errstate(divide="ignore", invalid="ignore"):
            taus[rows] = (x * y).sum(axis=1) / np.sqrt((x != 0).sum(axis=1) * (y != 0).sum(axis=1))
    return taus


def _signs(differences: FloatArray) -> FloatArray:
    return np.sign(np.where(np.abs(differences) <= STORED_DRAWS_TIE, 0.0, differences))


def _p_value(x: FloatArray, y: FloatArray, tau: float) -> float:
    """Return the share of all orders of y that give at least this |tau|; for many experiments, scipy's p value."""
    if len(x) > MAX_EXACT_EXPERIMENTS:
        return float(stats.kendalltau(np.round(x / STORED_DRAWS_TIE), np.round(y / STORED_DRAWS_TIE)).pvalue)
    orders = np.array([y[list(order)] for order in itertools.permutations(range(len(y)))])
    return float(
        np.mean(np.abs(kendall_tau_b(np.broadcast_to(x, orders.shape), orders)) >= abs(tau) - STORED_DRAWS_TIE)
    )


def _tau_interval(before: FloatArray, after: FloatArray, level: float) -> tuple[float, float] | None:
    taus = kendall_tau_b(before, after)
    defined = taus[~np.isnan(taus)]
    if 2 * len(defined) < len(taus):
        return None
    lower, upper = percentile_interval(defined, level)
    return float(lower), float(upper)
