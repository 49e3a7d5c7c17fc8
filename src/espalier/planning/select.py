"""Selection: which groups go.

budget = floor(pruning_ratio * total_params)

Groups are removed in the order (score, layer, block, group) while they fit: a group that costs more than what is left
of the budget, or of its layer's limit, is passed over for a smaller one. The budget is never exceeded. While MLP
channels remain that their layer may lose, it is missed by less than one of them.

Options, in the order in which they act (P = prunable parameters of a layer):

limit(layer)      0 for frozen layers, else floor(max_layer_ratio * P).
uniform           every free layer loses the share budget / sum of their P, by score within the layer. What is smaller
                  than a channel is carried to the next layer, so that the total misses by less than one channel.
collapse_below    layers that would keep less than this share of P are removed whole, those that keep least first, as
                  long as they fit the budget; one that does not fit keeps at least the share instead. The rest is
                  selected again with what budget remains, until no layer is left to collapse.
mlp_multiple_of   see `widths`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import ModelStructure
from espalier.planning.groups import GroupTable
from espalier.planning.widths import fit_widths

Allocation = Literal["global", "uniform"]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SelectionOptions:
    """Constraints on what may be removed; names and defaults are those of `selection` in the config."""

    freeze_first_layers: int = 0
    freeze_last_layers: int = 0
    max_layer_ratio: float = 1.0
    collapse_below: float = 0.0
    mlp_multiple_of: int = 1


def check_feasible(
    structure: ModelStructure, pruning_ratio: float, options: SelectionOptions, allocation: Allocation = "global"
) -> None:
    """Refuse a request that no scores could satisfy.

    Raises:
        UserError: The ratio is not in [0, 1), or larger than what the options let go.
    """
    if not 0 <= pruning_ratio < 1:
        raise UserError(f"pruning_ratio is {pruning_ratio}; it is at least 0 and less than 1")
    if options.collapse_below > 0 and options.max_layer_ratio < 1:
        raise UserError(
            f"collapse_below {options.collapse_below} removes whole layers, which max_layer_ratio "
            f"{options.max_layer_ratio} forbids; set only one of the two"
        )
    limits = _layer_limits(structure, options, allocation)
    _check_budget(structure, pruning_ratio, options, sum(limits))


def select(
    groups: GroupTable,
    structure: ModelStructure,
    scores: NDArray[np.float64],
    pruning_ratio: float,
    options: SelectionOptions,
    allocation: Allocation = "global",
) -> Mask:
    """Choose the groups to remove.

    Args:
        groups: The model's groups.
        structure: The model's sizes.
        scores: Score of each group, finite, (n_groups,).
        pruning_ratio: Share of all parameters to remove, in [0, 1).
        options: Constraints.
        allocation: Whether all layers compete, or each loses the same share.

    Returns:
        Which groups are removed, (n_groups,).

    Raises:
        UserError: The request is infeasible (`check_feasible`), or `collapse_below` makes it so.
    """
    if scores.shape != (len(groups),) or not np.isfinite(scores).all():
        raise ValueError(f"{len(groups)} finite scores are needed, one per group")
    check_feasible(structure, pruning_ratio, options, allocation)
    budget = _floor_share(pruning_ratio, structure.total_params)
    limits = np.array(_layer_limits(structure, options, allocation), dtype=np.int64)
    order = np.argsort(scores, kind="stable")  # the table's own order breaks ties
    if allocation == "uniform":
        removed = _take_uniformly(groups, structure, order, budget, limits)
    elif options.collapse_below > 0:
        removed = _take_with_collapse(groups, structure, order, pruning_ratio, options)
    else:
        removed = _take(groups, order, budget, limits)
    if options.mlp_multiple_of > 1:
        if options.collapse_below > 0:
            limits = _limits_after_collapse(groups, structure, removed, limits, options.collapse_below)
        near = allocation == "uniform"
        return fit_widths(groups, scores, removed, budget, limits, options.mlp_multiple_of, near=near)
    return removed


def _floor_share(share: float, count: int) -> int:
    """floor(share * count) for the decimal number that was written: 0.29 of 100 is 29, not 28."""
    return math.floor(Fraction(repr(float(share))) * count)


def _least_kept(params: int, collapse_below: float) -> int:
    """Fewest parameters that are not less than the share `collapse_below` of `params`."""
    return math.ceil(Fraction(repr(float(collapse_below))) * params)


def _layer_limits(structure: ModelStructure, options: SelectionOptions, allocation: Allocation) -> list[int]:
    """How many parameters each layer may lose."""
    last = structure.n_layers - options.freeze_last_layers
    limits = []
    for index, layer in enumerate(structure.layers):
        limit = _floor_share(options.max_layer_ratio, layer.prunable_params)
        if allocation == "uniform":  # layers that all keep the same share collapse together or not at all
            limit = min(limit, layer.prunable_params - _least_kept(layer.prunable_params, options.collapse_below))
        limits.append(limit if options.freeze_first_layers <= index < last else 0)
    return limits


def _check_budget(structure: ModelStructure, pruning_ratio: float, options: SelectionOptions, most: int) -> None:
    """Refuse a budget of more than `most` parameters."""
    total = structure.total_params
    budget = _floor_share(pruning_ratio, total)
    if budget <= most:
        return
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    in_force = [f"{field.name} {given[field.name]}" for field in fields(options) if given[field.name] != field.default]
    raise UserError(
        f"pruning_ratio {pruning_ratio} means removing {budget:,} of {total:,} parameters, but at most {most:,} can go"
        + (f" with {', '.join(in_force)}" if in_force else "")
        + f"; lower pruning_ratio to at most {math.floor(10_000 * most / total) / 10_000:g}"
        + (" or relax these options" if in_force else "")
    )


def _per_layer(groups: GroupTable, chosen: Ints | Mask) -> Ints:
    """Cost of the chosen groups by layer, (n_layers,). Exact: sums stay below 2**53."""
    sums = np.bincount(groups.layer[chosen], weights=groups.cost[chosen], minlength=groups.n_layers)
    return sums.astype(np.int64)


def _take(groups: GroupTable, candidates: Ints, budget: int, limits: Ints) -> Mask:
    """Take candidates (rows, lowest score first) while they fit the budget and their layers' limits.

    Each turn ends at the first group too large for the budget and drops all others as large, so there are at most as
    many turns as different costs.
    """
    removed = np.zeros(len(groups), dtype=bool)
    room = limits.copy()
    while candidates.size:
        candidates = candidates[groups.cost[candidates] <= budget]
        fitting = _fit_layers(groups, candidates, room)
        n_taken = int(np.searchsorted(np.cumsum(groups.cost[fitting]), budget, side="right"))
        taken = fitting[:n_taken]
        removed[taken] = True
        budget -= int(groups.cost[taken].sum())
        room -= _per_layer(groups, taken)
        if n_taken == len(fitting):
            break
        candidates = candidates[int(np.argmax(candidates == fitting[n_taken])) + 1 :]
    return removed


def _fit_layers(groups: GroupTable, candidates: Ints, room: Ints) -> Ints:
    """Candidates that are taken when only their layers' room counts, in the order given. All layers go in step."""
    if (_per_layer(groups, candidates) <= room).all():
        return candidates
    fits = np.zeros(len(groups), dtype=bool)
    room = room.copy()
    rest = candidates[np.argsort(groups.layer[candidates], kind="stable")]
    while rest.size:
        layer, cost = groups.layer[rest], groups.cost[rest]
        possible = cost <= room[layer]
        rest, layer, cost = rest[possible], layer[possible], cost[possible]
        spent = np.cumsum(cost)
        before = np.concatenate(([0], spent))[np.searchsorted(layer, np.arange(groups.n_layers))]
        fit = spent - before[layer] <= room[layer]
        fits[rest[fit]] = True
        room -= _per_layer(groups, rest[fit])
        rest = rest[~fit]
    return candidates[fits[candidates]]


def _take_uniformly(groups: GroupTable, structure: ModelStructure, order: Ints, budget: int, limits: Ints) -> Mask:
    """Take the same share of every layer that may lose something; what a layer leaves unspent passes to the next."""
    free = [index for index, limit in enumerate(limits) if limit > 0]
    all_free = sum(structure.layers[index].prunable_params for index in free)
    removed = np.zeros(len(groups), dtype=bool)
    seen, spent = 0, 0
    for index in free:
        seen += structure.layers[index].prunable_params
        candidates = order[groups.layer[order] == index]
        taken = _take(groups, candidates, budget * seen // all_free - spent, limits)
        spent += int(groups.cost[taken].sum())
        removed |= taken
    return removed


def _take_with_collapse(
    groups: GroupTable, structure: ModelStructure, order: Ints, pruning_ratio: float, options: SelectionOptions
) -> Mask:
    """Take the lowest scores, removing whole those layers that would keep too little."""
    params = [layer.prunable_params for layer in structure.layers]
    least = [_least_kept(count, options.collapse_below) for count in params]
    limits = np.array(_layer_limits(structure, options, "global"), dtype=np.int64)
    budget = _floor_share(pruning_ratio, structure.total_params)
    collapsed = np.zeros(structure.n_layers, dtype=bool)
    while True:
        _check_budget(structure, pruning_ratio, options, int(np.where(collapsed, params, limits).sum()))
        removed = _take(groups, order[~collapsed[groups.layer[order]]], budget, limits)
        kept = np.array(params) - _per_layer(groups, removed)
        sparse = [index for index in np.flatnonzero(~collapsed) if kept[index] < least[index]]
        if not sparse:
            return removed | collapsed[groups.layer]
        for index in sorted(sparse, key=lambda index: kept[index] / params[index]):
            if params[index] <= budget:
                collapsed[index] = True
                budget -= params[index]
            else:
                limits[index] = params[index] - least[index]


def _limits_after_collapse(
    groups: GroupTable, structure: ModelStructure, removed: Mask, limits: Ints, collapse_below: float
) -> Ints:
    """What layers may lose once collapsed layers stay as they are and the others keep their least share."""
    params = np.array([layer.prunable_params for layer in structure.layers])
    least = np.array([_least_kept(int(count), collapse_below) for count in params])
    is_empty = _per_layer(groups, removed) == params
    return np.where(is_empty, 0, np.minimum(limits, params - least))
