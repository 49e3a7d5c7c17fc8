"""Does a ranking survive? The order of experiments before something is done to them, and after.

x_i, y_i = accuracy of experiment i before and after; over all pairs i < j
S    = sum of sign(x_i - x_j) sign(y_i - y_j);   n_x, n_y = pairs that differ in x, in y
tau  = S / sqrt(n_x n_y)                                            (Kendall's tau-b; 1: same order, -1: reversed)

The interval is from the percentiles of tau over joint bootstrap draws of both accuracies: what other documents would
change. Drawing adds noise to accuracies that have some already, so the interval lies rather too low than too high. The
p value is of the hypothesis that the two orders have nothing to do with each other: over all orders of up to 7
experiments, above that scipy's (exact without ties). No order of n experiments gives a p under 2 / n!, which is 1/3 for
three and 1/12 for four.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from espalier.statistics.bootstrap import LEVEL, percentile_interval
from espalier.statistics.checks import FloatArray, finite, same_lengths
from espalier.statistics.messages import Message

MIN_POINTS = 3
ALL_ORDERS_UP_TO = 7  # 5,040 orders
# Draws are stored in float32; accuracies that differ by less are equal. One document in a million makes a difference.
TIE = 1e-6
_CHUNK = 256  # draws at a time: pairs of 100 experiments take 10 MB


@dataclass(frozen=True)
class Ranking:
    """How two orders agree.

    Attributes:
        n: Experiments.
        tau: Kendall's tau-b; null where undefined.
        p: Probability of so large a |tau| if the orders had nothing to do with each other.
        smallest_p: The smallest p that so few experiments can give.
        interval: Interval of tau over draws; null without draws, or where most draws leave tau undefined.
        level: Level of the interval.
        reason: Why tau is null, where it is.
    """

    n: int
    tau: float | None
    p: float | None
    smallest_p: float | None
    interval: tuple[float, float] | None
    level: float
    reason: Message | None


def compare_rankings(
    before: Any, after: Any, draws: tuple[FloatArray, FloatArray] | None = None, *, level: float = LEVEL
) -> Ranking:
    """Compare the order of experiments before and after.

    Args:
        before: Accuracies before, (n_experiments,).
        after: Accuracies after, of the same experiments.
        draws: Joint bootstrap draws of both, (n_draws, n_experiments) each; None gives no interval.
        level: Level of the interval.

    Raises:
        UserError: If a value is missing.
    """
    x, y = finite(before, "accuracy before"), finite(after, "accuracy after")
    same_lengths(before=x, after=y)
    n = len(x)
    if n < MIN_POINTS:
        return Ranking(n, None, None, None, None, level, Message("too_few", {"n": n, "needed": MIN_POINTS}))
    tau = float(tau_of(x[None], y[None])[0])
    if math.isnan(tau):
        return Ranking(n, None, None, None, None, level, Message("no_spread"))
    interval = None if draws is None else _interval(*draws, level)
    return Ranking(n, tau, _p_value(x, y, tau), 2 / math.factorial(n), interval, level, None)


def tau_of(before: FloatArray, after: FloatArray) -> FloatArray:
    """Compute tau-b of each row: (n_rows, n_experiments) twice to (n_rows,); NaN where a row has no two values."""
    first, second = np.triu_indices(before.shape[1], k=1)
    taus = np.empty(len(before))
    for start in range(0, len(before), _CHUNK):
        rows = slice(start, start + _CHUNK)
        x, y = (_signs(values[rows, first] - values[rows, second]) for values in (before, after))
        with np.errstate(divide="ignore", invalid="ignore"):
            taus[rows] = (x * y).sum(axis=1) / np.sqrt((x != 0).sum(axis=1) * (y != 0).sum(axis=1))
    return taus


def _signs(differences: FloatArray) -> FloatArray:
    return np.sign(np.where(np.abs(differences) <= TIE, 0.0, differences))


def _p_value(x: FloatArray, y: FloatArray, tau: float) -> float:
    """Return how often |tau| is as large over all orders of y."""
    if len(x) > ALL_ORDERS_UP_TO:
        return float(stats.kendalltau(np.round(x / TIE), np.round(y / TIE)).pvalue)
    orders = np.array([y[list(order)] for order in itertools.permutations(range(len(y)))])
    return float(np.mean(np.abs(tau_of(np.broadcast_to(x, orders.shape), orders)) >= abs(tau) - TIE))


def _interval(before: FloatArray, after: FloatArray, level: float) -> tuple[float, float] | None:
    taus = tau_of(before, after)
    defined = taus[~np.isnan(taus)]
    if 2 * len(defined) < len(taus):
        return None
    lower, upper = percentile_interval(defined, level)
    return float(lower), float(upper)
