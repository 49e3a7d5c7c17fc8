"""Pearson's correlation of a metric with accuracy, pooled over methods and within methods.

pooled r       = Pearson's r over all experiments of a model and ratio, as in the reference
within r       = Pearson's r over the experiments of one method
mean within r  = unweighted mean of all defined within r

Pooled r mixes two relations: metric and accuracy within a method, and metric and accuracy between methods. The words
for the strength describe the mean within r: none below 0.5, moderate up to 0.7, strong above. The reference has the
same limits.

The mean is the plain mean, so a reader can check it from the printed values. A mean of Fisher's z = atanh(r) is not
used: z is infinite at r = 1, which three experiments reach easily, and one such method would outweigh all others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from espalier.messages.catalogue import Message
from espalier.statistics.validation import FloatArray, same_lengths

MIN_POINTS = 3
# With fewer distinct values of the metric nothing is claimed about a relation.
MIN_DISTINCT = 6
MODERATE_FROM = 0.5
STRONG_ABOVE = 0.7

Strength = Literal["none", "moderate", "strong"]


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation.

    Attributes:
        r: Correlation coefficient; None if undefined.
        n: Number of experiments for which both values are finite.
        n_distinct: Number of distinct values of the metric among these experiments. It can be smaller than `n`, because
            all experiments that use the same gradient pass have the same gradient metrics.
        reason: Why `r` is None; None if it is defined.
    """

    r: float | None
    n: int
    n_distinct: int
    reason: Message | None


@dataclass(frozen=True)
class GroupedCorrelation:
    """A correlation, pooled and within groups.

    Attributes:
        pooled: Correlation over all experiments.
        within: Correlation over the experiments of each group, in order of appearance.
        mean_within: Unweighted mean of r over the groups in which it is defined; None if there is no such group.
        n_groups: Number of groups in which r is defined.
        strength: Word for the strength of `mean_within`; None if that is undefined.
        sign_differs: Whether `mean_within` and the pooled r have opposite signs; None if either is undefined.
        mixed_signs: Whether there are groups with opposite signs; None if r is defined in no group.
        reason: Why `mean_within` is None; None if it is defined.
    """

    pooled: Correlation
    within: dict[str, Correlation]
    mean_within: float | None
    n_groups: int
    strength: Strength | None
    sign_differs: bool | None
    mixed_signs: bool | None
    reason: Message | None


def correlation(x: Any, y: Any, *, x_name: Message | str = "x", y_name: Message | str = "y") -> Correlation:
    """Compute Pearson's correlation over the experiments where both values are finite.

    Args:
        x: The metric, (n,); missing values are NaN.
        y: The accuracy, (n,); missing values are NaN.
        x_name: Name of the metric, used in the reason.
        y_name: Name of the accuracy, used in the reason.

    Raises:
        ValueError: If the lengths differ.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (x, y))
    same_lengths(x=a, y=b)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    n, n_distinct = len(a), len(np.unique(a))
    if n == 0:
        return Correlation(None, n, n_distinct, Message("no_values", {"name": x_name}))
    if n < MIN_POINTS:
        return Correlation(None, n, n_distinct, Message("too_few", {"n": n, "needed": MIN_POINTS}))
    units = []
    for values, name in ((a, x_name), (b, y_name)):
        unit = _unit_deviation(values)
        if unit is None:
            code = "constant" if values.min() == values.max() else "too_close"
            return Correlation(None, n, n_distinct, Message(code, {"name": name}))
        units.append(unit)
    r = float(np.clip(units[0] @ units[1], -1, 1))
    return Correlation(r, n, n_distinct, None)


def grouped_correlation(
    x: Any, y: Any, groups: Sequence[Hashable], *, x_name: Message | str = "x", y_name: Message | str = "y"
) -> GroupedCorrelation:
    """Compute the correlation over all experiments, within each group, and the mean over groups.

    Args:
        x: The metric, (n,); missing values are NaN.
        y: The accuracy, (n,); missing values are NaN.
        groups: Group of each experiment, such as its method.
        x_name: Name of the metric, used in the reason.
        y_name: Name of the accuracy, used in the reason.

    Raises:
        ValueError: If the lengths differ.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (x, y))
    same_lengths(x=a, y=b, groups=groups)
    pooled = correlation(a, b, x_name=x_name, y_name=y_name)
    within = {}
    for group in dict.fromkeys(groups):
        member = np.array([one == group for one in groups], dtype=np.bool_)
        within[str(group)] = correlation(a[member], b[member], x_name=x_name, y_name=y_name)
    defined = [one.r for one in within.values() if one.r is not None]
    if not defined:
        # Report the reason of the group with most experiments, which is the most informative.
        fullest = max(within.values(), key=lambda one: one.n, default=pooled)
        return GroupedCorrelation(pooled, within, None, 0, None, None, None, fullest.reason)
    mean = float(np.mean(defined))
    return GroupedCorrelation(
        pooled=pooled,
        within=within,
        mean_within=mean,
        n_groups=len(defined),
        strength=strength(mean),
        sign_differs=None if pooled.r is None else pooled.r * mean < 0,
        mixed_signs=min(defined) < 0 < max(defined),
        reason=None,
    )


def relation_is_shown(grouped: GroupedCorrelation, level: float) -> bool:
    """Return whether the relation within groups is distinguishable from none, for other settings like these.

    Fisher's z of the mean within r against 0: |atanh(r)| * sqrt(df) > the normal quantile at the level. df is the sum
    of n - 3 over the groups, at most n_distinct - 3: experiments that share a value of the metric are not independent.

    Args:
        grouped: The correlation.
        level: Confidence level of the statement, already corrected for the number of statements.
    """
    distinct = grouped.pooled.n_distinct
    if grouped.mean_within is None or distinct < MIN_DISTINCT:
        return False
    df = min(sum(max(0, one.n - 3) for one in grouped.within.values() if one.r is not None), distinct - 3)
    z = np.arctanh(min(abs(grouped.mean_within), 1 - 1e-12)) * np.sqrt(df)
    return bool(z > stats.norm.ppf((1 + level) / 2))


def strength(r: float) -> Strength:
    """Classify the strength of a correlation: none below 0.5, moderate up to 0.7, strong above."""
    if abs(r) < MODERATE_FROM:
        return "none"
    return "strong" if abs(r) > STRONG_ABOVE else "moderate"


def _unit_deviation(values: FloatArray) -> FloatArray | None:
    """Return deviations from the mean, scaled to length 1; None if they are only rounding errors."""
    largest = np.abs(values).max()
    if largest == 0:
        return None
    scaled = values / largest  # so that squares neither overflow nor underflow
    deviation = scaled - scaled.mean()
    length = float(np.linalg.norm(deviation))
    return deviation / length if length > 1e-13 * np.sqrt(len(values)) else None
