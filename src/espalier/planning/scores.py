"""Scores of groups: selection removes the groups with the lowest scores first.

base  = importance / cost
score = base * B ** T,  B = ln(1 + max(prior, prior_floor))

The scope of the method determines the prior of a group:

none   no prior: score = base
layer  the prior of its layer
block  the prior of its attention block or MLP block
gated  the prior of its layer, if the floored layer prior is strictly less than the tau-quantile over all layers;
       otherwise the prior of its block

The importance of a whole layer is the sum over its groups, and its scope is `none` or `layer`.

With `normalise`, importances are first divided by their sum over the layer, or over the block of the layer. If the sum
is zero, they remain zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.planning.groups import ATTENTION_ID, MLP_ID, GroupTable

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of a method that affect its scores, with the names and defaults of `methods` in the config."""

    scope: Literal["none", "layer", "block", "gated"] = "none"
    temperature: float = 1.0
    tau: float | None = None
    prior_floor: float = 1e-4
    normalise: Literal["none", "layer", "block"] = "none"


@dataclass(frozen=True, eq=False)
class PriorColumns:
    """Priors of all layers, attention blocks and MLP blocks by one measure: three arrays of shape (n_layers,)."""

    layer: Float64Array
    attention: Float64Array
    mlp: Float64Array


def score_groups(
    groups: GroupTable, importance: Float64Array, settings: ScoreSettings, priors: PriorColumns | None = None
) -> tuple[Float64Array, int]:
    """Compute the score of every group.

    Args:
        groups: The model's groups.
        importance: Importance of each group, (n_groups,).
        settings: Settings of the method.
        priors: Measured priors; not used with scope `none`.

    Returns:
        The scores, (n_groups,), and how many of the priors that they use were raised to the floor.

    Raises:
        UserError: If an importance or prior is missing or not finite, an importance is negative, the scope is `gated`
            and tau is missing, or the scores overflow.
    """
    importance = np.asarray(importance, dtype=np.float64)
    _check_importance(groups, importance)
    base = _normalised(groups, importance, settings.normalise) / groups.cost
    if settings.scope == "none":
        return base, 0
    if priors is None:
        raise UserError(f"scope {settings.scope!r} needs priors, and none are given; measure them or use scope 'none'")
    by_block, n_floored = _priors_by_block(_prior_array(groups, priors), settings)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = base * (np.log1p(by_block) ** settings.temperature)[groups.layer, groups.block]
    if not np.isfinite(scores).all():
        raise UserError(f"scores overflow at temperature {settings.temperature:g}; lower the temperature")
    return scores, n_floored


def score_layers(
    groups: GroupTable,
    importance: Float64Array,
    costs: NDArray[np.int64],
    settings: ScoreSettings,
    priors: PriorColumns | None = None,
) -> tuple[Float64Array, int]:
    """Compute the score of every layer.

    Args:
        groups: The model's groups.
        importance: Importance of each group, (n_groups,).
        costs: Parameters of each layer, (n_layers,).
        settings: Settings of the method, with scope `none` or `layer`.
        priors: Measured priors; not used with scope `none`.

    Returns:
        The scores, (n_layers,), and how many of the priors that they use were raised to the floor.

    Raises:
        UserError: As `score_groups`.
    """
    importance = np.asarray(importance, dtype=np.float64)
    _check_importance(groups, importance)
    base = np.bincount(groups.layer, weights=importance, minlength=groups.n_layers) / costs
    if settings.scope == "none":
        return base, 0
    if priors is None:
        raise UserError(f"scope {settings.scope!r} needs priors, and none are given; measure them or use scope 'none'")
    measured = _prior_array(groups, priors)[:, 2]
    with np.errstate(over="ignore", invalid="ignore"):
        scores = base * np.log1p(np.maximum(measured, settings.prior_floor)) ** settings.temperature
    if not np.isfinite(scores).all():
        raise UserError(f"scores overflow at temperature {settings.temperature:g}; lower the temperature")
    return scores, int((measured < settings.prior_floor).sum())


def _check_importance(groups: GroupTable, importance: Float64Array) -> None:
    if importance.shape != (len(groups),):
        where = f"; the first without one is {groups.name(len(importance))}" if importance.size < len(groups) else ""
        raise UserError(
            f"{importance.size} importances are given for {len(groups)} groups{where}; "
            "collect the importances of this model again"
        )
    wrong = np.flatnonzero(~(np.isfinite(importance) & (importance >= 0)))
    if wrong.size:
        raise UserError(
            f"the importance of {groups.name(wrong[0])} is {importance[wrong[0]]}; importances are finite and not "
            "negative; collect them again"
        )


def _normalised(groups: GroupTable, importance: Float64Array, within: str) -> Float64Array:
    """Divide importances by their sum within the layer or the block; a sum of zero gives zeros."""
    if within == "none":
        return importance
    part = groups.layer.astype(np.int64) * 2 + (groups.block if within == "block" else 0)
    sums = np.bincount(part, weights=importance)[part]
    shares: Float64Array = np.divide(importance, sums, out=np.zeros_like(importance), where=sums > 0)
    return shares


def _prior_array(groups: GroupTable, priors: PriorColumns) -> Float64Array:
    """Check the priors and return them as one array, (n_layers, 3), with columns attention, MLP, layer."""
    columns = {"attention": priors.attention, "mlp": priors.mlp, "layer": priors.layer}
    for name, values in columns.items():
        if np.shape(values) != (groups.n_layers,):
            raise UserError(
                f"{np.size(values)} {name} priors are given for {groups.n_layers} layers; measure them again"
            )
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            raise UserError(
                f"the {name} prior of layer {wrong[0]} is {values[wrong[0]]}; priors are finite; measure them again"
            )
    return np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)


def _priors_by_block(table: Float64Array, settings: ScoreSettings) -> tuple[Float64Array, int]:
    """Return the prior that each block uses, (n_layers, 2), and how many of the used priors were floored."""
    floored = np.maximum(table, settings.prior_floor)
    n_layers = len(table)
    if settings.scope == "gated":
        if settings.tau is None:
            raise UserError("scope 'gated' needs tau, a quantile from 0 to 1")
        takes_layer = floored[:, 2] < np.quantile(floored[:, 2], settings.tau)
    else:
        takes_layer = np.full(n_layers, settings.scope == "layer")
    chosen = np.where(takes_layer[:, None], floored[:, [2, 2]], floored[:, [ATTENTION_ID, MLP_ID]])
    used = np.stack([~takes_layer, ~takes_layer, takes_layer], axis=1)
    return chosen, int((used & (table < settings.prior_floor)).sum())
