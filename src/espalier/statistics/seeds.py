"""Effects of the axes, compared with the variation between calibration seeds.

Every setting is run with S calibration seeds. For each seed s, e_sk is the effect of value k of an axis: the mean
accuracy of this value over settings, minus the mean over all K values of the axis. Least squares with sum-to-zero
columns holds the other axes fixed.

effect_k   = mean over s of e_sk
stderr_k   = standard deviation over s of e_sk / sqrt(S)
interval_k = effect_k -+ t(S - 1) * stderr_k
F          = [S * sum_k effect_k**2 / (K - 1)] / [sum_sk (e_sk - effect_k)**2 / ((K - 1)(S - 1))]

F is the F ratio of an analysis of variance with seeds as blocks; it has K - 1 and (K - 1)(S - 1) degrees of freedom.
All settings of one seed share its calibration documents. If a seed changes the accuracy of all settings equally, the
change cancels, because it is not an error of a comparison.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL
from espalier.statistics.validation import FloatArray, finite_array, same_lengths

_ZERO_ERROR = 1e-24


@dataclass(frozen=True)
class AxisEffect:
    """Effects of the values of one axis, with their errors between seeds; arrays are (n_values,).

    Attributes:
        values: Values of the axis, in order of appearance.
        effect: Mean effect over seeds, relative to the mean over values; None if undefined.
        stderr: Standard error of `effect` between seeds; None if undefined.
        intervals: Lower and upper ends, (n_values, 2); None if undefined.
        f: F ratio; None if undefined.
        df: Degrees of freedom of `f`.
        p: Probability of a larger F if the axis had no effect; None if undefined.
        reason: Why a value is None; None if all values are defined.
    """

    values: tuple[Hashable, ...]
    effect: FloatArray | None
    stderr: FloatArray | None
    intervals: FloatArray | None
    f: float | None
    df: tuple[int, int]
    p: float | None
    reason: Message | None


@dataclass(frozen=True)
class SeedErrors:
    """Effects of all axes, compared with the variation between seeds.

    Attributes:
        seeds: Calibration seeds of the experiments.
        n_settings: Number of settings that were run with every seed.
        n_left_out: Number of experiments that were not used: of other settings, or of methods without a seed.
        axes: Effects of each axis; empty if undefined.
        setting_std: Standard deviation of a setting's accuracy between seeds, pooled over settings with S - 1 degrees
            of freedom each; None if undefined.
        reason: Why nothing was computed; None if the effects were computed.
    """

    seeds: tuple[Hashable, ...]
    n_settings: int
    n_left_out: int
    axes: dict[str, AxisEffect]
    setting_std: float | None
    reason: Message | None


def seed_errors(
    accuracy: Any, axes: Mapping[str, Sequence[Hashable]], seeds: Sequence[Hashable], *, level: float = CONFIDENCE_LEVEL
) -> SeedErrors:
    """Compute the effects of the axes and their errors between seeds.

    Args:
        accuracy: Accuracies, (n_experiments,).
        axes: Value of every experiment on each axis.
        seeds: Calibration seed of every experiment; None if its method uses no seed.
        level: Confidence level of the intervals.

    Raises:
        UserError: If an accuracy is missing or infinite, or a setting was run twice with one seed.
        ValueError: If the columns have different lengths.
    """
    y = finite_array(accuracy, "accuracy")
    same_lengths(accuracy=y, seeds=seeds, **axes)
    used = tuple(dict.fromkeys(seed for seed in seeds if seed is not None))
    if len(used) < 2:
        reason = Message("one_seed", {"n": len(used)})
        return SeedErrors(used, 0, y.size, {}, None, reason)
    rows: dict[tuple[Hashable, ...], dict[Hashable, int]] = {}
    for row, (seed, *setting) in enumerate(zip(seeds, *axes.values(), strict=True)):
        if seed is not None and rows.setdefault(tuple(setting), {}).setdefault(seed, row) != row:
            raise UserError(f"setting {tuple(setting)} was given twice with seed {seed}")
    complete = {setting: by_seed for setting, by_seed in rows.items() if len(by_seed) == len(used)}
    n_left_out = y.size - len(complete) * len(used)
    if not complete:
        return SeedErrors(used, 0, n_left_out, {}, None, Message("no_setting_at_every_seed"))
    table = np.array([[y[by_seed[seed]] for by_seed in complete.values()] for seed in used])  # (S, n_settings)
    levels = {name: [setting[place] for setting in complete] for place, name in enumerate(axes)}
    effects = {name: _axis_effect(table, name, levels, level) for name in levels}
    std = float(np.sqrt(table.var(axis=0, ddof=1).mean()))
    return SeedErrors(used, len(complete), n_left_out, effects, std, None)


def _axis_effect(table: FloatArray, name: str, levels: Mapping[str, Sequence[Hashable]], level: float) -> AxisEffect:
    """Compute the effects of one axis from the accuracies by seed and setting, (S, n_settings)."""
    values = tuple(dict.fromkeys(levels[name]))
    n_seeds, n_values = len(table), len(values)
    df = (n_values - 1, (n_values - 1) * (n_seeds - 1))
    if n_values < 2:
        return AxisEffect(values, None, None, None, None, df, None, Message("one_level", {"axis": name}))
    others = [_effect_columns(column) for other, column in levels.items() if other != name]
    rest = np.hstack([np.ones((table.shape[1], 1)), *others])
    own = _effect_columns(levels[name])
    if np.linalg.matrix_rank(np.hstack([rest, own])) < np.linalg.matrix_rank(rest) + n_values - 1:
        return AxisEffect(values, None, None, None, None, df, None, Message("aliased", {"axis": name}))
    coefficients = np.linalg.lstsq(np.hstack([rest, own]), table.T, rcond=None)[0][rest.shape[1] :].T  # (S, K - 1)
    by_seed = np.hstack([coefficients, -coefficients.sum(axis=1, keepdims=True)])  # (S, K)
    effect = by_seed.mean(axis=0)
    stderr = by_seed.std(axis=0, ddof=1) / np.sqrt(n_seeds)
    margin = float(stats.t.ppf((1 + level) / 2, n_seeds - 1)) * stderr
    intervals = np.stack([effect - margin, effect + margin], axis=1)
    error = float(((by_seed - effect) ** 2).sum()) / df[1]
    if error <= _ZERO_ERROR:
        # An interval without width would claim that another seed gives exactly these effects.
        return AxisEffect(values, effect, None, None, None, df, None, Message("no_seed_variation"))
    f = float(n_seeds * (effect**2).sum() / df[0] / error)
    return AxisEffect(values, effect, stderr, intervals, f, df, float(stats.f.sf(f, *df)), None)


def _effect_columns(column: Sequence[Hashable]) -> FloatArray:
    """Encode K values in K - 1 sum-to-zero columns, (n, K - 1)."""
    values = list(dict.fromkeys(column))
    codes = np.vstack([np.eye(len(values) - 1), -np.ones(len(values) - 1)])
    return codes[[values.index(value) for value in column]]
