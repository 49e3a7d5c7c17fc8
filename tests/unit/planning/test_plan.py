"""Plans: counts, parameters, JSON."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import ATTENTION_ID, MLP_ID, GroupTable
from espalier.planning.plan import Plan
from tests.unit.planning.reference import Case, cases

# 2 KV groups of 10, 9 MLP channels of 3, norms of 6: 53 per layer, 12 outside, 118 in all.
SMALL = ModelSizes((LayerSizes(2, 10, 9, 3, 6),) * 2, other_params=12)
GROUPS = GroupTable.of(SMALL)


def small_plan() -> Plan:
    """Return a plan in which layer 0 loses KV group 0 and channels 0 to 4, and layer 1 loses channel 8."""
    removed = np.zeros(len(GROUPS), dtype=bool)
    removed[[0, 2, 3, 4, 5, 6, 21]] = True
    return Plan.from_mask(GROUPS, SMALL, removed)


def test_plan_lists_what_is_kept() -> None:
    plan = small_plan()
    assert plan.n_layers == 2
    assert plan.kept_kv_groups == ((1,), (0, 1))
    assert plan.kept_mlp_channels == ((5, 6, 7, 8), (0, 1, 2, 3, 4, 5, 6, 7))
    assert (plan.n_kept_kv_groups, plan.n_kept_mlp_channels) == ((1, 2), (4, 8))


def test_plan_counts_parameters() -> None:
    plan = small_plan()
    assert plan.layer_params(SMALL) == (10 + 4 * 3 + 6, 20 + 8 * 3 + 6)
    assert plan.removed_params(SMALL) == 10 + 5 * 3 + 3
    assert plan.removed_param_fraction(SMALL) == 28 / 118


def test_more_than_half_of_the_channels_is_extreme() -> None:
    assert small_plan().extreme_pruning_layers == 1  # layer 0 lost 5 of 9
    assert Plan((1,), (4,), ((0,),), ((0, 1),)).extreme_pruning_layers == 0  # exactly half


def test_identity_removes_nothing() -> None:
    plan = Plan.identity(SMALL)
    assert plan == Plan.from_mask(GROUPS, SMALL, np.zeros(len(GROUPS), dtype=bool))
    assert (plan.removed_params(SMALL), plan.extreme_pruning_layers) == (0, 0)


def test_emptied_attention_leaves_the_norms_of_the_reference(llama_3_8b: ModelSizes) -> None:
    # Layer 23 of the reference: no KV group, 3254 channels of 12288 = 39,985,152, and two norms of 4096 = 8,192.
    groups = GroupTable.of(llama_3_8b)
    removed = (groups.layer == 23) & (
        (groups.block == ATTENTION_ID) | ((groups.block == MLP_ID) & (groups.group >= 3254))
    )
    plan = Plan.from_mask(groups, llama_3_8b, removed)
    assert plan.layer_params(llama_3_8b)[23] == 39_985_152 + 8_192
    assert plan.removed_params(llama_3_8b) == 8 * 5_242_880 + (14336 - 3254) * 12_288
    assert (plan.n_kept_kv_groups[23], plan.n_kept_mlp_channels[23], plan.extreme_pruning_layers) == (0, 3254, 1)


@given(cases(), st.randoms())
def test_plan_survives_json(case: Case, random: Any) -> None:
    removed = np.array([random.random() < 0.5 for _ in range(len(case.groups))], dtype=bool)
    plan = Plan.from_mask(case.groups, case.sizes, removed)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.removed_params(case.sizes) == case.groups.cost[removed].sum()


def test_plan_of_llama_3_8b_is_small(llama_3_8b: ModelSizes) -> None:
    groups = GroupTable.of(llama_3_8b)
    plan = Plan.from_mask(groups, llama_3_8b, np.random.default_rng(0).random(len(groups)) < 0.2)
    text = json.dumps(plan.to_dict(), indent=1)
    assert len(text) < 150_000
    assert Plan.from_dict(json.loads(text)) == plan


def test_json_shows_counts_beside_masks() -> None:
    layer = small_plan().to_dict()["layers"][0]
    assert layer["layer"] == 0
    assert layer["kv_groups"] == {"n": 2, "n_kept": 1, "mask": "QA=="}  # bits 01, padded to 0x40
    assert {key: layer["mlp_channels"][key] for key in ("n", "n_kept")} == {"n": 9, "n_kept": 4}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: plan.pop("layers"), "plan has no layers"),
        (lambda plan: plan.update(n_layers="2"), "plan.n_layers is '2', not of type int"),
        (lambda plan: plan["layers"].pop(), r"n_layers is 2, but layers are numbered \[0\]"),
        (lambda plan: plan["layers"].reverse(), r"layers are numbered \[1, 0\]"),
        (lambda plan: plan["layers"].insert(0, None), r"plan.layers\[0\] has no layer"),
        (lambda plan: plan["layers"][1].pop("kv_groups"), r"plan.layers\[1\] has no kv_groups"),
        (lambda plan: plan["layers"][1]["kv_groups"].update(n_kept=1), "n_kept is 1, but the mask keeps 2"),
        (lambda plan: plan["layers"][1]["kv_groups"].update(n=9), "mask has 1 bytes for 9 groups"),
        (lambda plan: plan["layers"][1]["kv_groups"].update(n=1), "mask keeps group 1, but there are 1"),
        (lambda plan: plan["layers"][0]["mlp_channels"].update(mask="!"), r"mlp_channels.mask is not base64"),
    ],
)
def test_damaged_plans_are_refused(damage: Callable[[dict[str, Any]], Any], message: str) -> None:
    values = small_plan().to_dict()
    damage(values)
    with pytest.raises(UserError, match=message):
        Plan.from_dict(values)


def test_plan_of_another_model_is_refused() -> None:
    other = ModelSizes((SMALL.layers[0], LayerSizes(2, 10, 8, 3, 6)), 12)
    with pytest.raises(UserError, match=r"layer 1 has \(KV groups, MLP channels\) \(2, 9\) in the plan and \(2, 8\)"):
        small_plan().removed_params(other)
    with pytest.raises(UserError, match=r"layer 1 .* \(2, 9\) in the plan and None in the model"):
        small_plan().removed_params(ModelSizes(SMALL.layers[:1], 12))


def test_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask over 22 groups"):
        Plan.from_mask(GROUPS, SMALL, np.zeros(3, dtype=bool))
