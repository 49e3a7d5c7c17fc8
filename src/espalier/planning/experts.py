"""Selection of experts, and of channels inside experts.

budget = floor(pruning_ratio * total_params)

Experts  Every layer with experts loses equally many: m = floor(budget / sum over these layers of expert_params). In
         each layer, these are the m experts with the lowest scores; of equal ones, the first. The budget is not
         exceeded, and the removed parameters fall short of it by less than one expert of each layer. At least as many
         experts stay as the router chooses for a token.
Channels All experts of a layer are in one tensor, so they keep equally many channels, but each its own. Channels of
         each expert are ordered by their importance. MLP channel i of the layer means the i-th in this order of every
         expert, and its importance is the sum over the experts. It is selected like an MLP channel of a dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import ModelSizes
from espalier.planning.groups import GroupTable
from espalier.planning.select import SelectionOptions, floor_share

WIDTH_MULTIPLE = 8
"""Number that the channels of a pruned expert are a multiple of. Rows of the tensor of all experts then begin at
multiples of 16 bytes, in half precision and in full precision."""


def options_for(sizes: ModelSizes, options: SelectionOptions) -> SelectionOptions:
    """Return the options for groups of a model: with experts, widths are multiples of `WIDTH_MULTIPLE` too.

    Args:
        sizes: The model's sizes, with the groups that may be removed.
        options: Constraints of the study.
    """
    if not any(layer.n_experts and layer.n_mlp_channels for layer in sizes.layers):
        return options
    return replace(options, mlp_multiple_of=math.lcm(WIDTH_MULTIPLE, options.mlp_multiple_of))


def check_experts(sizes: ModelSizes, pruning_ratio: float, options: SelectionOptions) -> int:
    """Check that experts can be removed, whatever the scores.

    Returns:
        How many experts each layer with experts loses.

    Raises:
        UserError: If the model has no experts, an option contradicts equal numbers, or the ratio is too large or too
            small.
    """
    layers = [layer for layer in sizes.layers if layer.n_experts]
    if not layers:
        raise UserError(
            "units [expert]: the model has no experts, its MLPs are dense; leave out these methods for this model "
            "(models[].grid.methods), or use units [kv_group, mlp_channel]"
        )
    wrong = {"freeze_first_layers": 0, "freeze_last_layers": 0, "collapse_below": 0.0}
    for name, usual in wrong.items():
        if (value := getattr(options, name)) != usual:
            raise UserError(
                f"selection.{name} {value} gives layers different numbers of experts, but with units [expert] each "
                "loses equally many; remove one of the two"
            )
    least = max(layer.experts_per_token for layer in layers)
    n_experts = min(layer.n_experts for layer in layers)
    removable = max(0, min(n_experts - least, floor_share(options.max_layer_ratio, n_experts)))
    step, total = sum(layer.expert_params for layer in layers), sizes.total_params
    budget = floor_share(pruning_ratio, total)
    n_removed = budget // step
    if n_removed > removable:
        ratio = options.max_layer_ratio
        limit = f"selection.max_layer_ratio {ratio} and " if ratio < 1 else ""
        raise UserError(
            f"pruning_ratio {pruning_ratio} means removing {n_removed} of the {n_experts} experts of each layer, but "
            f"at most {removable} can go: {limit}each token is routed to {least}; lower pruning_ratio to at most "
            f"{math.floor(10_000 * ((removable + 1) * step - 1) / total) / 10_000:g}"
        )
    if pruning_ratio > 0 and n_removed == 0:
        raise UserError(
            f"pruning_ratio {pruning_ratio} means removing {budget:,} of {total:,} parameters, less than one expert of "
            f"each layer ({step:,}); raise pruning_ratio to at least {math.ceil(10_000 * step / total) / 10_000:g}"
        )
    return n_removed


def select_experts(
    groups: GroupTable,
    sizes: ModelSizes,
    scores: NDArray[np.float64],
    pruning_ratio: float,
    options: SelectionOptions,
) -> NDArray[np.bool_]:
    """Choose the experts to remove.

    Args:
        groups: The experts of the model (`expert_table`).
        sizes: The model's sizes.
        scores: Score of each expert, finite, (n_groups,).
        pruning_ratio: Share of all parameters to remove, in [0, 1).
        options: Constraints.

    Returns:
        Mask of the experts to remove, (n_groups,).

    Raises:
        UserError: If the request is infeasible (`check_experts`).
        ValueError: If the scores have a wrong shape or are not finite.
    """
    if scores.shape != (len(groups),) or not np.isfinite(scores).all():
        raise ValueError(f"{len(groups)} finite scores are needed, one per expert")
    n_removed = check_experts(sizes, pruning_ratio, options)
    order = np.lexsort((scores, groups.layer))
    firsts = np.searchsorted(groups.layer, groups.layer)  # row of the first expert of each expert's layer
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - firsts  # both are sorted by layer
    removed: NDArray[np.bool_] = ranks < n_removed
    return removed


def expert_table(sizes: ModelSizes) -> GroupTable:
    """Return the table of all experts of a model. They have the place of MLP groups in it."""
    return GroupTable.of(sizes.with_experts_as_groups())


class ChannelOrder:
    """The order of the channels of each expert by importance.

    Args:
        sizes: The model's sizes.
        importance: Importance of the channels of each layer, the lowest number first: (channels,) in a dense layer,
            otherwise those of all experts, expert by expert.
    """

    def __init__(self, sizes: ModelSizes, importance: Sequence[NDArray[np.float64]]) -> None:
        self._orders: list[NDArray[np.int64] | None] = []
        self.importance: list[NDArray[np.float64]] = []
        """Importance of the MLP channels of each layer, (n_mlp_channels,)."""
        for layer, values in zip(sizes.layers, importance, strict=True):
            if not layer.n_experts:
                self._orders.append(None)
                self.importance.append(values)
                continue
            by_expert = values.reshape(layer.n_experts, layer.n_mlp_channels)
            order = np.argsort(by_expert, axis=1, kind="stable")
            self._orders.append(order)
            self.importance.append(np.take_along_axis(by_expert, order, axis=1).sum(axis=0))

    def kept(self, layer: int, kept: Sequence[int]) -> tuple[tuple[int, ...], ...] | None:
        """Return the channels that each expert of a layer keeps; None in a dense layer.

        Args:
            layer: Index of the layer.
            kept: MLP channels that the layer keeps.
        """
        order = self._orders[layer]
        if order is None:
            return None
        return tuple(tuple(np.sort(row[list(kept)]).tolist()) for row in order)
