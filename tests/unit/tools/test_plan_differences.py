"""Comparison of two plans."""

import numpy as np
import pytest
from tools.plan_differences import compare_plans, kept_mask

from espalier.models.sizes import LayerStructure, ModelStructure
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan

# Two layers of 1 KV group and 3 channels; rows: KV 0, channels 1-3, KV 4, channels 5-7.
STRUCTURE = ModelStructure((LayerStructure(1, 8, 3, 3, 2),) * 2, other_params=5)
GROUPS = GroupTable.of(STRUCTURE)
SCORES = np.array([9.0, 1.0, 4.0, 2.0, 8.0, 3.0, 7.0, 2.002])


def plan_without(*rows: int) -> Plan:
    removed = np.zeros(len(GROUPS), dtype=bool)
    removed[list(rows)] = True
    return Plan.from_mask(GROUPS, STRUCTURE, removed)


def test_the_mask_of_a_plan_is_what_it_was_made_from() -> None:
    """`kept_mask` returns the mask that a plan was made from."""
    assert np.flatnonzero(~kept_mask(plan_without(0, 2, 7), GROUPS)).tolist() == [0, 2, 7]


def test_equal_plans_do_not_differ() -> None:
    difference = compare_plans(plan_without(1), plan_without(1), GROUPS, SCORES)
    assert (difference.n_groups, difference.n_differing, difference.farthest) == (8, 0, 0.0)


def test_distances_are_relative_to_the_lowest_score_that_is_kept() -> None:
    # The first plan removes rows 1 and 3 (scores 1 and 2), so the threshold is 2.002, the score of row 7. The second
    # plan removes row 7 instead of row 3.
    difference = compare_plans(plan_without(1, 3), plan_without(1, 7), GROUPS, SCORES)
    assert difference.n_differing == 2
    assert difference.farthest == pytest.approx(0.002 / 2.002)
