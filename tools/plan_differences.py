"""How two plans of one experiment differ: computed with other batch sizes, on other machines, by another version.

threshold = the lowest score among the groups that the first plan keeps
distance  = |score - threshold| / threshold
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.planning.groups import ATTENTION_ID, GroupTable
from espalier.planning.plan import Plan


@dataclass(frozen=True)
class PlanDifference:
    """What differs between two plans.

    Attributes:
        n_groups: Groups of the model.
        n_differing: Groups that one plan keeps and the other removes.
        farthest: Largest distance of such a group's score from the threshold, relative; 0 where none differs.
    """

    n_groups: int
    n_differing: int
    farthest: float


def compare_plans(first: Plan, second: Plan, groups: GroupTable, scores: NDArray[np.float64]) -> PlanDifference:
    """Compare two plans for one model.

    Args:
        first: The plan whose scores are given; it keeps at least one group.
        second: The other one.
        groups: The model's groups.
        scores: Score of each group in the first plan, (n_groups,).
    """
    kept = kept_mask(first, groups)
    differing = kept != kept_mask(second, groups)
    threshold = float(scores[kept].min())
    distances = np.abs(scores[differing] - threshold) / threshold
    return PlanDifference(len(groups), int(differing.sum()), float(distances.max(initial=0.0)))


def kept_mask(plan: Plan, groups: GroupTable) -> NDArray[np.bool_]:
    """Mark the groups that a plan keeps, (n_groups,)."""
    kept = np.zeros(len(groups), dtype=bool)
    for layer, blocks in enumerate(zip(plan.kept_kv_groups, plan.kept_mlp_channels, strict=True)):
        for block, indices in enumerate(blocks, start=ATTENTION_ID):
            first_row = np.searchsorted(groups.layer * 2 + groups.block, layer * 2 + block)
            kept[first_row + np.array(indices, dtype=np.int64)] = True
    return kept
