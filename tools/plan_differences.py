"""Compare two plans of the same experiment, for example from another batch size, machine or version.

    threshold = lowest score of the groups that the first plan keeps
    distance  = |score - threshold| / threshold

A small distance means that the group was nearly on the other side of the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.planning.groups import ATTENTION, GroupTable
from espalier.planning.plan import Plan


@dataclass(frozen=True)
class PlanDifference:
    """Result of the comparison of two plans.

    Attributes:
        n_groups: Number of groups of the model.
        n_differing: Number of groups that one plan keeps and the other removes.
        farthest: Largest distance of a differing group from the threshold (see the module); 0 if no group differs.
    """

    n_groups: int
    n_differing: int
    farthest: float


def compare_plans(first: Plan, second: Plan, groups: GroupTable, scores: NDArray[np.float64]) -> PlanDifference:
    """Compare two plans of one model.

    Args:
        first: A plan that keeps at least one group.
        second: The other plan.
        groups: Groups of the model.
        scores: Scores that the first plan was made from, (n_groups,).
    """
    kept = kept_mask(first, groups)
    differing = kept != kept_mask(second, groups)
    threshold = float(scores[kept].min())
    distances = np.abs(scores[differing] - threshold) / threshold
    return PlanDifference(len(groups), int(differing.sum()), float(distances.max(initial=0.0)))


def kept_mask(plan: Plan, groups: GroupTable) -> NDArray[np.bool_]:
    """Return a mask of the groups that a plan keeps, (n_groups,)."""
    kept = np.zeros(len(groups), dtype=bool)
    for layer, blocks in enumerate(zip(plan.kept_kv_groups, plan.kept_mlp_channels, strict=True)):
        for block, indices in enumerate(blocks, start=ATTENTION):
            first_row = np.searchsorted(groups.layer * 2 + groups.block, layer * 2 + block)
            kept[first_row + np.array(indices, dtype=np.int64)] = True
    return kept
