"""Differences between methods and between calibration settings, over the settings that both sides have.

A difference is a weighted sum of the values of experiments. A value is the accuracy kept (accuracy divided by that of
the unpruned model), or the accuracy if the unpruned model has no result. `espalier.statistics.contrasts` gives the
simultaneous intervals; `espalier.analysis.answers` makes the sentences.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from espalier.analysis.message_json import to_plain_json
from espalier.naming import BASELINE
from espalier.statistics.bootstrap import Bootstrap
from espalier.statistics.contrasts import SimultaneousContrasts
from espalier.statistics.validation import FloatArray

LENGTH, SAMPLES = "taylor_seq_len", "taylor_num_samples"


@dataclass(frozen=True)
class Contrast:
    """The difference `first` - `second` of two methods or two values of an axis.

    Attributes:
        axis: `method`, `taylor_seq_len`, `taylor_num_samples`, or `tokens` (sequence lengths at equal tokens).
        first: Method, or value of the axis.
        second: Method, or value of the axis.
        n: Number of settings that both sides have; if one side has no settings, the larger number of experiments.
        tokens: Number of calibration tokens, for the axis `tokens`; None otherwise.
        control: Whether `second` is a control.
        weights: Weight of each experiment in the difference.
        sides: Number of experiments of each side, if one side has no settings; None otherwise.
    """

    axis: str
    first: str
    second: str
    n: int
    tokens: int | None = None
    control: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    sides: tuple[int, int] | None = None

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """What the difference is about; equal for the same difference of two models."""
        return self.axis, self.first, self.second, self.tokens


@dataclass(frozen=True)
class Values:
    """Values of the experiments of one model and their joint draws.

    Attributes:
        measure: `kept` or `accuracy`.
        draws: Values of the experiments, without the unpruned model.
    """

    measure: str
    draws: Bootstrap

    def of(self, contrast: Contrast) -> tuple[float, FloatArray]:
        """Return a difference, and its value in each draw, (n_draws,)."""
        chosen = self.draws.select(list(contrast.weights))
        weights = np.array(list(contrast.weights.values()))
        return float(chosen.accuracy @ weights), chosen.draws @ weights


def values_of(draws: Bootstrap, *, measure: str | None = None) -> Values:
    """Return accuracy kept if the unpruned model has draws above 0, else accuracy.

    Args:
        draws: Joint draws of the experiments, and of the unpruned model if it has a result.
        measure: `accuracy` to return accuracies in any case.
    """
    names = [name for name in draws.experiments if name != BASELINE]
    of_experiments = draws.select(names)
    if measure == "accuracy" or BASELINE not in draws.experiments:
        return Values("accuracy", of_experiments)
    unpruned = draws.select([BASELINE])
    if unpruned.accuracy[0] <= 0 or (unpruned.draws <= 0).any():
        return Values("accuracy", of_experiments)
    kept = replace(
        of_experiments,
        accuracy=of_experiments.accuracy / unpruned.accuracy,
        draws=of_experiments.draws / unpruned.draws,
    )
    return Values("kept", kept)


def comparable_values(draws: Mapping[str, Bootstrap]) -> dict[str, Values]:
    """Return the values of each item: accuracy kept if it is known for all items, else accuracy.

    Args:
        draws: Joint draws of the experiments of each item, such as a pruning ratio or a model.
    """
    found = {key: values_of(one) for key, one in draws.items()}
    if len({one.measure for one in found.values()}) == 1:
        return found
    return {key: values_of(one, measure="accuracy") for key, one in draws.items()}


def contrasts_of(valid: pd.DataFrame, order: Sequence[str] = ()) -> list[Contrast]:
    """List the differences of one model at one pruning ratio.

    Methods are compared with each other and with each control, values of an axis and settings of equally many tokens
    with each other, over the settings that both sides have. A method without calibration settings, such as a control,
    is compared with the mean over all settings of the other.

    Args:
        valid: The valid experiments, controls included.
        order: Methods in the order of the sides of a difference (`ModelRows.methods`). Others come last, as in `valid`.
    """
    rows = [_Row.of(row) for row in valid.to_dict("records")]
    candidates = [row for row in rows if not row.control]
    place = {method: number for number, method in enumerate(order)}
    methods = sorted(dict.fromkeys(row.method for row in candidates), key=lambda name: place.get(name, len(place)))
    controls = list(dict.fromkeys(row.method for row in rows if row.control))
    pairs = [*combinations(methods, 2), *((method, control) for method in methods for control in controls)]
    found = [_between_methods(rows, first, second, second in controls) for first, second in pairs]
    for axis, number in ((LENGTH, 0), (SAMPLES, 1)):
        values = sorted({row.setting[number] for row in candidates if row.setting[number] is not None})
        found += [_between_values(candidates, axis, number, one, other) for other, one in combinations(values, 2)]
    found += _at_equal_tokens(candidates)
    return [contrast for contrast in found if contrast is not None]


def contrast_json(contrast: Contrast, found: SimultaneousContrasts, index: int, **more: Any) -> dict[str, Any]:
    """Return a difference and its simultaneous interval as JSON content."""
    return {
        "axis": contrast.axis,
        "first": contrast.first,
        "second": contrast.second,
        "tokens": contrast.tokens,
        "control": contrast.control,
        "n_settings": contrast.n,
        "n_of_sides": None if contrast.sides is None else list(contrast.sides),
        **more,
        "difference": float(found.estimate[index]),
        "interval": to_plain_json(found.intervals[index]),
        "differs": bool(found.differs[index]),
    }


@dataclass(frozen=True)
class _Row:
    experiment: str
    method: str
    control: bool
    setting: tuple[Any, Any, Any]  # sequence length, number of sequences, calibration

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> _Row:
        length, count = (None if pd.isna(row[axis]) else int(row[axis]) for axis in (LENGTH, SAMPLES))
        calibration = None if pd.isna(row["calibration"]) else str(row["calibration"])
        return cls(str(row["experiment"]), str(row["method"]), bool(row["control"]), (length, count, calibration))

    @property
    def has_setting(self) -> bool:
        return self.setting[0] is not None or self.setting[1] is not None


def _between_methods(rows: Sequence[_Row], first: str, second: str, control: bool) -> Contrast | None:
    sides = [[row for row in rows if row.method == method] for method in (first, second)]
    keys: list[set[Hashable]] = [{row.setting for row in side} for side in sides]
    common = keys[0] & keys[1]
    if common:
        sides = [[row for row in side if row.setting in common] for side in sides]
        return Contrast("method", first, second, len(common), None, control, _weights(*sides))
    if all(any(row.has_setting for row in side) for side in sides):
        return None
    sizes = len(sides[0]), len(sides[1])
    return Contrast("method", first, second, max(sizes), None, control, _weights(*sides), sizes)


def _between_values(rows: Sequence[_Row], axis: str, number: int, first: int, second: int) -> Contrast | None:
    def rest(row: _Row) -> Hashable:
        return row.method, *(value for index, value in enumerate(row.setting) if index != number)

    sides = [[row for row in rows if row.setting[number] == value] for value in (first, second)]
    common = {rest(row) for row in sides[0]} & {rest(row) for row in sides[1]}
    if not common:
        return None
    sides = [[row for row in side if rest(row) in common] for side in sides]
    return Contrast(axis, str(first), str(second), len(common), weights=_weights(*sides))


def _at_equal_tokens(rows: Sequence[_Row]) -> list[Contrast | None]:
    complete = [row for row in rows if row.setting[0] is not None and row.setting[1] is not None]
    found: list[Contrast | None] = []
    for tokens in sorted({row.setting[0] * row.setting[1] for row in complete}):
        group = [row for row in complete if row.setting[0] * row.setting[1] == tokens]
        lengths = sorted({row.setting[0] for row in group})
        blocks = [{(row.method, row.setting[2]) for row in group if row.setting[0] == length} for length in lengths]
        shared = set.intersection(*blocks)
        if len(lengths) < 2 or not shared:
            continue
        ends = [
            [row for row in group if row.setting[0] == length and (row.method, row.setting[2]) in shared]
            for length in (lengths[-1], lengths[0])
        ]
        found.append(
            Contrast("tokens", str(lengths[-1]), str(lengths[0]), len(shared), tokens, weights=_weights(*ends))
        )
    return found


def _weights(first: Sequence[_Row], second: Sequence[_Row]) -> dict[str, float]:
    """Weigh the mean of the first experiments minus the mean of the second."""
    weights = {row.experiment: 1 / len(first) for row in first}
    return weights | {row.experiment: -1 / len(second) for row in second}
