"""Simultaneous intervals of several differences: all of them hold together at one level.

d_c         observed difference c;  d*_c: the same difference in a joint bootstrap draw over documents
se_c        standard deviation of d*_c over the draws
critical    quantile over draws, at the level, of  max_c |d*_c - d_c| / se_c
interval_c  d_c -+ critical * se_c

The maximum over all differences of a family makes the intervals simultaneous: the probability that any of them misses
its true value is 1 - level. Differences that are alike cost nothing, unlike with a correction by their number (Westfall
and Young 1993; Hothorn, Bretz and Westfall 2008, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.statistics.validation import TIE, BoolArray, FloatArray, accuracy_and_draws


@dataclass(frozen=True)
class SimultaneousContrasts:
    """Differences with simultaneous intervals; arrays are (n_contrasts,).

    Attributes:
        level: Share of studies in which every interval holds its true difference.
        critical: Width of the intervals in standard errors; 0 if no difference varies over the draws.
        estimate: Observed differences.
        stderr: Standard errors.
        intervals: Lower and upper ends, (n_contrasts, 2).
        differs: Whether the interval excludes 0. Always False for a difference that does not vary over the draws: that
            is a limit of the bootstrap, not certainty.
    """

    level: float
    critical: float
    estimate: FloatArray
    stderr: FloatArray
    intervals: FloatArray
    differs: BoolArray


def simultaneous_contrasts(estimate: Any, draws: Any, *, level: float) -> SimultaneousContrasts:
    """Compute simultaneous intervals of a family of differences.

    Args:
        estimate: Observed differences, (n_contrasts,).
        draws: The same differences in joint bootstrap draws, (n_draws, n_contrasts).
        level: Share of studies in which all intervals must hold.

    Raises:
        UserError: If a value is missing or infinite, or there is no difference.
        ValueError: If the shapes do not match, or there are fewer than two draws.
    """
    observed, drawn = accuracy_and_draws(estimate, draws)
    error = np.abs(drawn - observed)
    stderr = np.asarray(drawn.std(axis=0, ddof=1), dtype=np.float64)
    varies = stderr > TIE
    critical = 0.0
    if varies.any():
        largest = np.sort((error[:, varies] / stderr[varies]).max(axis=1))
        # The order statistic that keeps the level with a finite number of draws.
        rank = min(math.ceil(level * (len(largest) + 1)), len(largest))
        critical = float(largest[rank - 1])
    half = critical * stderr
    intervals = np.stack([observed - half, observed + half], axis=1)
    return SimultaneousContrasts(level, critical, observed, stderr, intervals, varies & (np.abs(observed) > half + TIE))
