"""Share of the variation of the accuracies that each axis of the grid explains.

Main effects are fitted by least squares with one dummy column for each value of each axis. RSS(X) is the residual sum
of squares of a fit on the axes X.

SS(axis)        = RSS(all other axes) - RSS(all axes)                 type II: the axis beyond the others
SS(interaction) = RSS(all axes) - RSS(one mean for each setting)
SS(within)      = RSS(one mean for each setting)                       0 unless settings were run several times
SS(total)       = RSS(overall mean)

In a complete grid the parts sum to the total. In an incomplete grid some of the variation is common to several axes. It
is then attributed to none of them.

Evaluation noise. Each SS is a quadratic form y' Q y. Errors of the accuracies with covariance S (from the joint
bootstrap) add trace(Q S) to it on average. This noise is subtracted:

share = (SS - trace(Q S)) / (SS(total) - trace(Q_total S)), at least 0

A part that is smaller than its noise gets the share 0. The other shares are then scaled down, so that all shares sum to
at most 1.

The shares describe the settings that were run. They are not a significance test, and they do not describe other values
of an axis.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.statistics.validation import FloatArray, finite_array, same_lengths

_ZERO_VARIATION = 1e-12


@dataclass(frozen=True)
class VariationPart:
    """One part of the variation.

    Attributes:
        sum_of_squares: Observed sum of squares.
        noise: Average contribution of evaluation noise to `sum_of_squares`.
        df: Degrees of freedom.
        share: Share of the total variation, noise subtracted from both; None if undefined.
        reason: Why `share` is None; None if it is defined.
    """

    sum_of_squares: float
    noise: float
    df: int
    share: float | None
    reason: Message | None


@dataclass(frozen=True)
class Decomposition:
    """Variation of the accuracies, decomposed by axis.

    Attributes:
        n: Number of experiments.
        axes: Part that each axis explains.
        interaction: Part that only combinations of the axes explain.
        within: Variation between repeated runs of the same setting.
        total: Total variation.
        noise_share: Share of the total sum of squares that is evaluation noise, at most 1; None if all accuracies are
            equal.
        balanced: Whether the sums of squares of the parts add up to the total.
    """

    n: int
    axes: dict[str, VariationPart]
    interaction: VariationPart
    within: VariationPart
    total: VariationPart
    noise_share: float | None
    balanced: bool


def decompose(accuracy: Any, axes: Mapping[str, Sequence[Hashable]], covariance: Any | None = None) -> Decomposition:
    """Decompose the variation of accuracies by axis.

    Args:
        accuracy: Accuracies, (n_experiments,).
        axes: Value of every experiment on each axis; None is a separate value (for a method without that axis).
        covariance: Joint covariance of the evaluation errors, (n_experiments, n_experiments); None means no noise.

    Raises:
        UserError: If an accuracy is missing or infinite, or there is no experiment.
        ValueError: If the columns have different lengths.
    """
    y = finite_array(accuracy, "accuracy")
    same_lengths(accuracy=y, **axes)
    if not y.size:
        raise UserError("no experiment was given; at least one valid experiment is needed")
    noise = np.zeros((y.size, y.size)) if covariance is None else finite_array(covariance, "the covariance", ndim=2)
    saturated_fit, mean_fit = _Fit(y.size, 0.0, 0.0), _Fit.of([], y, noise)
    full = _Fit.of(list(axes.values()), y, noise)
    settings = _Fit.of([list(zip(*axes.values(), strict=True))] if axes else [], y, noise)
    parts = {}
    for name, values in axes.items():
        others = _Fit.of([column for other, column in axes.items() if other != name], y, noise)
        parts[name] = _variation_part(others, full, _why_undefined(name, values, others, full))
    interaction = _variation_part(full, settings, _unless(full.rank < settings.rank, "no_interaction"))
    within = _variation_part(settings, saturated_fit, _unless(settings.rank < y.size, "no_replicates"))
    total = _variation_part(mean_fit, saturated_fit, None)
    *shared, interaction, within, total = _with_shares([*parts.values(), interaction, within], total)
    gap = abs(sum(part.sum_of_squares for part in (*shared, interaction, within)) - mean_fit.rss)
    return Decomposition(
        n=y.size,
        axes=dict(zip(parts, shared, strict=True)),
        interaction=interaction,
        within=within,
        total=total,
        noise_share=min(1.0, mean_fit.noise / mean_fit.rss) if mean_fit.rss > _ZERO_VARIATION else None,
        balanced=gap <= 1e-9 * max(mean_fit.rss, _ZERO_VARIATION),
    )


@dataclass(frozen=True)
class _Fit:
    """A least-squares fit: its rank, its residual sum of squares, and the average noise in that sum."""

    rank: int
    rss: float
    noise: float

    @classmethod
    def of(cls, axes: Sequence[Sequence[Hashable]], y: FloatArray, noise: FloatArray) -> _Fit:
        columns = [np.ones((y.size, 1)), *(_dummies(values) for values in axes)]
        left, singular, _ = np.linalg.svd(np.hstack(columns), full_matrices=False)
        basis = left[:, singular > 1e-10 * singular[0]]  # (n, rank), orthonormal
        residual = y - basis @ (basis.T @ y)
        noise_left = float(np.trace(noise) - np.trace(basis.T @ noise @ basis))
        return cls(basis.shape[1], float(residual @ residual), noise_left)


def _dummies(values: Sequence[Hashable]) -> FloatArray:
    levels = list(dict.fromkeys(values))
    return np.array([[value == level for level in levels] for value in values], dtype=np.float64)


def _variation_part(smaller: _Fit, larger: _Fit, reason: Message | None) -> VariationPart:
    """Return the part that the larger fit explains beyond the smaller fit; `_with_shares` sets its share."""
    squares, noise = max(0.0, smaller.rss - larger.rss), max(0.0, smaller.noise - larger.noise)
    return VariationPart(squares, noise, larger.rank - smaller.rank, None, reason)


def _with_shares(parts: Sequence[VariationPart], total: VariationPart) -> list[VariationPart]:
    """Return the parts with their shares, followed by the total with its share."""
    variation = total.sum_of_squares - total.noise
    reason = None
    if variation <= _ZERO_VARIATION:
        reason = Message("no_spread" if total.sum_of_squares <= _ZERO_VARIATION else "all_noise")
    explained = [max(0.0, part.sum_of_squares - part.noise) for part in parts]
    total_explained = max(variation, sum(explained))  # the sum is larger if a part is smaller than its noise
    shared = [
        replace(part, reason=part.reason or reason, share=None if part.reason or reason else amount / total_explained)
        for part, amount in zip(parts, explained, strict=True)
    ]
    return [*shared, replace(total, reason=reason, share=None if reason else 1.0)]


def _why_undefined(name: str, values: Sequence[Hashable], others: _Fit, full: _Fit) -> Message | None:
    if len(set(values)) < 2:
        return Message("one_level", {"axis": name})
    return _unless(others.rank < full.rank, "aliased", {"axis": name})


def _unless(condition: bool, code: str, values: Mapping[str, str] | None = None) -> Message | None:
    return None if condition else Message(code, values or {})
