"""Selection: choose the groups to remove.

budget = floor(pruning_ratio * total_params)

Groups are removed in the order (score, layer, block, group). A group is skipped if its cost exceeds the remaining
budget or the remaining limit of its layer. The budget is never exceeded. The removed parameters fall short of it by
less than one MLP channel, as long as the limits allow more channels to be removed.

Options, in the order in which they are applied (P = prunable parameters of a layer):

limit(layer)      0 for frozen layers, otherwise floor(max_layer_ratio * P).
uniform           Every layer that is not frozen loses the same share: budget / sum of their P. Groups are chosen by
                  score within each layer. A remainder smaller than a channel is carried to the next layer, so the total
                  falls short of the budget by less than one channel.
collapse_below    Layers that would keep less than this share of P are removed completely, if they fit the budget. The
                  layer that would keep the smallest share is removed first. A layer that does not fit the budget keeps
                  at least the share instead. Selection is then repeated for the other layers with the remaining budget,
                  until no layer would keep less than the share.
mlp_multiple_of   See `widths`.

`same_shape` selects with `allocation: same_shape`, and `depth` selects whole layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.widths import fit_widths

Allocation = Literal["global", "uniform", "same_shape"]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SelectionOptions:
    """Constraints on which groups may be removed, with the names and defaults of `selection` in the config."""

    freeze_first_layers: int = 0
    freeze_last_layers: int = 0
    max_layer_ratio: float = 1.0
    collapse_below: float = 0.0
    mlp_multiple_of: int = 1


def check_feasible(
    sizes: ModelSizes, pruning_ratio: float, options: SelectionOptions, allocation: Allocation = "global"
) -> None:
    """Check that a request is possible, whatever the scores.

    Raises:
        UserError: If the ratio is not in [0, 1) or is larger than the options allow, or the options contradict each
            other.
    """
    if not 0 <= pruning_ratio < 1:
        raise UserError(f"pruning_ratio is {pruning_ratio}; it is at least 0 and less than 1")
    if options.collapse_below > 0 and options.max_layer_ratio < 1:
        raise UserError(
            f"collapse_below {options.collapse_below} removes whole layers, which max_layer_ratio "
            f"{options.max_layer_ratio} forbids; set only one of the two"
        )
    limits = layer_limits(sizes, options, allocation)
    check_budget(sizes, pruning_ratio, options, sum(limits))


def select_groups(
    groups: GroupTable,
    sizes: ModelSizes,
    scores: NDArray[np.float64],
    pruning_ratio: float,
    options: SelectionOptions,
    allocation: Allocation = "global",
) -> Mask:
    """Choose the groups to remove.

    Args:
        groups: The model's groups.
        sizes: The model's sizes.
        scores: Score of each group, finite, (n_groups,).
        pruning_ratio: Share of all parameters to remove, in [0, 1).
        options: Constraints.
        allocation: Whether all layers compete (`global`), or each layer loses the same share (`uniform`).

    Returns:
        Mask of the groups to remove, (n_groups,).

    Raises:
        UserError: If the request is infeasible (`check_feasible`), or becomes infeasible because of `collapse_below`.
        ValueError: If the scores have a wrong shape or are not finite.
    """
    if scores.shape != (len(groups),) or not np.isfinite(scores).all():
        raise ValueError(f"{len(groups)} finite scores are needed, one per group")
    check_feasible(sizes, pruning_ratio, options, allocation)
    budget = floor_share(pruning_ratio, sizes.total_params)
    limits = np.array(layer_limits(sizes, options, allocation), dtype=np.int64)
    order = np.argsort(scores, kind="stable")  # stable: groups with equal scores keep their order
    if allocation == "uniform":
        removed = _take_uniformly(groups, sizes, order, budget, limits)
    elif options.collapse_below > 0:
        removed = _take_with_collapse(groups, sizes, order, pruning_ratio, options)
    else:
        removed = _take(groups, order, budget, limits)
    if options.mlp_multiple_of > 1:
        if options.collapse_below > 0:
            limits = _limits_after_collapse(groups, sizes, removed, limits, options.collapse_below)
        adjacent_only = allocation == "uniform"
        return fit_widths(groups, scores, removed, budget, limits, options.mlp_multiple_of, adjacent_only=adjacent_only)
    return removed


def exact(share: float) -> Fraction:
    """Return a decimal share without rounding error: 29 / 100 for 0.29."""
    return Fraction(repr(float(share)))


def floor_share(share: float, count: int) -> int:
    """Return floor(share * count) without rounding error of the decimal share: 29, not 28, for 0.29 of 100."""
    return math.floor(exact(share) * count)


def _least_kept(params: int, collapse_below: float) -> int:
    """Return the smallest number of parameters that is at least the share `collapse_below` of `params`."""
    return math.ceil(exact(collapse_below) * params)


def layer_limits(sizes: ModelSizes, options: SelectionOptions, allocation: Allocation) -> list[int]:
    """Return how many parameters each layer may lose."""
    last = sizes.n_layers - options.freeze_last_layers
    limits = []
    for index, layer in enumerate(sizes.layers):
        limit = floor_share(options.max_layer_ratio, layer.prunable_params)
        if allocation != "global":  # all layers lose the same share, so none may collapse
            limit = min(limit, layer.prunable_params - _least_kept(layer.prunable_params, options.collapse_below))
        limits.append(limit if options.freeze_first_layers <= index < last else 0)
    return limits


def check_budget(
    sizes: ModelSizes, pruning_ratio: float, options: SelectionOptions, most: int, *also_in_force: str
) -> None:
    """Check that the budget is at most `most` parameters; `also_in_force` names further limits for the message."""
    total = sizes.total_params
    budget = floor_share(pruning_ratio, total)
    if budget <= most:
        return
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    in_force = [f"{field.name} {given[field.name]}" for field in fields(options) if given[field.name] != field.default]
    in_force += also_in_force
    raise UserError(
        f"pruning_ratio {pruning_ratio} means removing {budget:,} of {total:,} parameters, but at most {most:,} can go"
        + (f" with {', '.join(in_force)}" if in_force else "")
        + f"; lower pruning_ratio to at most {math.floor(10_000 * most / total) / 10_000:g}"
        + (" or relax these options" if in_force else "")
    )


def _per_layer(groups: GroupTable, chosen: Ints | Mask) -> Ints:
    """Return the cost of the chosen groups in each layer, (n_layers,). It is exact, because sums are below 2**53."""
    sums = np.bincount(groups.layer[chosen], weights=groups.cost[chosen], minlength=groups.n_layers)
    return sums.astype(np.int64)


def _take(groups: GroupTable, candidates: Ints, budget: int, limits: Ints) -> Mask:
    """Return the mask of the candidates (rows, lowest score first) that fit the budget and the limits of their layers.

    Each iteration ends at the first group that exceeds the remaining budget. The next iteration drops all groups of at
    least that cost, so there are at most as many iterations as distinct costs.
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
    """Return the candidates that fit the limits of their layers, in the given order, without regard to the budget.

    `room` is the number of parameters that each layer may still lose. The loop handles all layers at once.
    """
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


def _take_uniformly(groups: GroupTable, sizes: ModelSizes, order: Ints, budget: int, limits: Ints) -> Mask:
    """Remove the same share of every layer that may lose groups; carry the unused budget of a layer to the next."""
    free = [index for index, limit in enumerate(limits) if limit > 0]
    all_free = sum(sizes.layers[index].prunable_params for index in free)
    removed = np.zeros(len(groups), dtype=bool)
    seen, spent = 0, 0
    for index in free:
        seen += sizes.layers[index].prunable_params
        candidates = order[groups.layer[order] == index]
        taken = _take(groups, candidates, budget * seen // all_free - spent, limits)
        spent += int(groups.cost[taken].sum())
        removed |= taken
    return removed


def _take_with_collapse(
    groups: GroupTable, sizes: ModelSizes, order: Ints, pruning_ratio: float, options: SelectionOptions
) -> Mask:
    """Remove the groups with the lowest scores, and completely remove layers that would keep too little."""
    params = [layer.prunable_params for layer in sizes.layers]
    least = [_least_kept(count, options.collapse_below) for count in params]
    limits = np.array(layer_limits(sizes, options, "global"), dtype=np.int64)
    budget = floor_share(pruning_ratio, sizes.total_params)
    collapsed = np.zeros(sizes.n_layers, dtype=bool)
    while True:
        check_budget(sizes, pruning_ratio, options, int(np.where(collapsed, params, limits).sum()))
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
    groups: GroupTable, sizes: ModelSizes, removed: Mask, limits: Ints, collapse_below: float
) -> Ints:
    """Return the limits for `fit_widths`: 0 for collapsed layers; the other layers keep at least `collapse_below`."""
    params = np.array([layer.prunable_params for layer in sizes.layers])
    least = np.array([_least_kept(int(count), collapse_below) for count in params])
    is_empty = _per_layer(groups, removed) == params
    return np.where(is_empty, 0, np.minimum(limits, params - least))
