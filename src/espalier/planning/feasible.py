"""Check a request before anything is loaded: whatever the scores, can the plan be made?"""

from __future__ import annotations

from collections.abc import Collection

from espalier.models.architecture import EXPERT, GROUP_UNITS, LAYER
from espalier.models.sizes import ModelSizes
from espalier.planning.depth import check_depth
from espalier.planning.experts import check_experts, options_for
from espalier.planning.same_shape import check_same_shape
from espalier.planning.select import Allocation, SelectionOptions, check_feasible


def check_request(
    sizes: ModelSizes,
    pruning_ratio: float,
    options: SelectionOptions,
    allocation: Allocation = "global",
    units: Collection[str] = GROUP_UNITS,
    kv_group_counts: Collection[int] | None = None,
) -> None:
    """Check that a plan can be made, whatever the scores.

    Args:
        sizes: Sizes of the model.
        pruning_ratio: Share of all parameters to remove.
        options: Constraints.
        allocation: How removal is divided among the layers.
        units: Names of the units to remove.
        kv_group_counts: Numbers of KV groups that a layer may keep with allocation `same_shape`; None allows all.

    Raises:
        UserError: If it cannot.
    """
    if EXPERT in units:
        check_experts(sizes, pruning_ratio, options)
    elif LAYER in units:
        check_depth(sizes, pruning_ratio, options)
    else:
        with_groups = sizes.with_groups_of(units)
        options = options_for(with_groups, options)
        if allocation == "same_shape":
            check_same_shape(with_groups, pruning_ratio, options, kv_group_counts)
        else:
            check_feasible(with_groups, pruning_ratio, options, allocation)
