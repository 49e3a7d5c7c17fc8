"""Tests of the selection of experts and of channels inside experts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from espalier.errors import UserError
from espalier.models.kept_experts import KeptExperts
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.experts import ChannelOrder, check_experts, expert_table, options_for, select_experts
from espalier.planning.feasible import check_request
from espalier.planning.make_plan import PlanSettings, make_plan
from espalier.planning.plan import Plan, kept_layers
from espalier.planning.scores import ScoreSettings
from espalier.planning.select import SelectionOptions
from espalier.planning.stock import StockShape, obstacles, stock_shape

# 4 experts of 16 channels with 3 parameters each, and a router row of 2: 50 parameters each. Attention: 2 groups of 10.
LAYER = LayerSizes(
    n_kv_groups=2, kv_group_params=10, n_mlp_channels=16, mlp_channel_params=12, fixed_params=8 + 12, n_experts=4,
    router_params=2, experts_per_token=2,
)  # fmt: skip
DENSE = LayerSizes(n_kv_groups=2, kv_group_params=10, n_mlp_channels=16, mlp_channel_params=3, fixed_params=12)
SIZES = ModelSizes((LAYER, LAYER), other_params=1000 - 2 * 232)  # 1000 parameters
MIXED = ModelSizes((LAYER, DENSE, LAYER), other_params=20)
OPTIONS = SelectionOptions()
SETTINGS = PlanSettings(
    "reap", "loss_increase", ScoreSettings(), "global", OPTIONS, 0.1, n_samples=8, seed=0, units=("expert",)
)


def table(rows: list[tuple[int, str, list[float]]], n_samples: int = 8) -> pa.Table:
    """Return an importance table of (layer, block, values)."""
    frames = [
        pd.DataFrame({"n_samples": n_samples, "layer": layer, "block": block, "group": range(len(values)),
                      "importance": values})
        for layer, block, values in rows
    ]  # fmt: skip
    return pa.Table.from_pandas(pd.concat(frames, ignore_index=True))


def test_sizes_count_each_parameter_once() -> None:
    assert LAYER.expert_params == 16 * 12 // 4 + 2 == 50
    assert LAYER.params == 2 * 10 + 16 * 12 + 20 == 232
    as_groups = LAYER.with_experts_as_groups()
    assert (as_groups.n_kv_groups, as_groups.n_mlp_channels, as_groups.mlp_channel_params) == (0, 4, 50)
    assert as_groups.params == LAYER.params
    # 1 of 2 KV groups, 8 of 16 channels of 3 of 4 experts, and a router row less
    assert LAYER.kept_params(1, 8, 3) == (10, 8 * 3 * 3, 18)
    assert DENSE.with_experts_as_groups().prunable_params == DENSE.expert_params == 0
    assert ModelSizes.from_dict(MIXED.to_dict()) == MIXED
    assert "n_experts" not in MIXED.to_dict()["layers"][1]


def test_each_layer_loses_the_experts_of_the_lowest_scores() -> None:
    """The budget of 100 is one expert of each layer; that of 199 too."""
    groups = expert_table(SIZES)
    scores = np.array([3.0, 1.0, 2.0, 4.0, 9.0, 8.0, 7.0, 7.0])
    for ratio in (0.1, 0.199):
        removed = select_experts(groups, SIZES, scores, ratio, OPTIONS)
        assert np.flatnonzero(removed).tolist() == [1, 6]  # of equal scores, the first
    assert np.flatnonzero(select_experts(groups, SIZES, scores, 0.2, OPTIONS)).tolist() == [1, 2, 6, 7]


def test_dense_layers_are_left_whole() -> None:
    """3 x 232 - 144 = 564 parameters: 0.2 is 112 parameters, one expert in each of two layers."""
    assert MIXED.total_params == 2 * 232 + (20 + 48 + 12) + 20 == 564
    importance = table([(0, "experts", [4, 3, 2, 1]), (2, "experts", [1, 2, 3, 4])])
    plan, summary = make_plan(MIXED, replace(SETTINGS, pruning_ratio=0.2), importance, None)
    assert plan.kept_experts == {0: KeptExperts((0, 1, 2)), 2: KeptExperts((1, 2, 3))}
    assert plan.n_experts == (4, 0, 4)
    assert plan.n_kept_experts == (3, None, 3)
    assert summary.removed_params == plan.removed_params(MIXED) == 100
    assert plan.layer_params(MIXED) == (182, 80, 182)
    assert summary.extreme_pruning_layers == 0
    assert stock_shape(plan.kept) == StockShape(3, 2, 16, 3, 16)


def test_a_plan_is_read_back_and_belongs_to_its_model() -> None:
    plan = Plan.without_experts(expert_table(SIZES), SIZES, np.array([1, 1, 0, 0, 0, 0, 1, 1], dtype=bool))
    content = plan.to_dict()
    assert content["layers"][0]["experts"] == {"n": 4, "n_kept": 2, "mask": "MA=="}  # 0011 0000
    assert "expert_channels" not in content["layers"][0]
    assert Plan.from_dict(content) == plan
    assert [layer.n_experts for layer in kept_layers(content)] == [2, 2]
    dense = ModelSizes((DENSE, DENSE), 1)
    with pytest.raises(UserError, match=r"the layers have \(4, 4\) experts in the plan and none in the model; use"):
        plan.removed_params(dense)
    assert "experts" not in Plan.identity(dense).to_dict()["layers"][0]


def test_channels_are_ordered_in_each_expert() -> None:
    """Expert 0 prefers its last channels, expert 1 its first; the others are in between.

    Eight of 16 channels of each expert go, because widths are multiples of 8.
    """
    rising, falling = list(range(1, 17)), list(range(16, 0, -1))
    mlp = [*rising, *falling, *rising, *falling]
    rows = [(0, "mlp", mlp), (1, "mlp", [1000] * 64)]
    rows += [(layer, "attention", [900, 900]) for layer in (0, 1)]
    rows += [(layer, "experts", [1, 1, 1, 1]) for layer in (0, 1)]
    importance = table(rows)
    settings = replace(SETTINGS, criterion="taylor", units=("kv_group", "mlp_channel"))
    plan, summary = make_plan(SIZES, settings, importance, None)
    last, first = tuple(range(8, 16)), tuple(range(8))
    assert plan.kept_experts[0] == KeptExperts((0, 1, 2, 3), (last, first, last, first))
    assert plan.kept_experts[1] == KeptExperts((0, 1, 2, 3))
    assert plan.n_kept_mlp_channels == (8, 16)
    assert summary.removed_params == 8 * 12
    assert Plan.from_dict(plan.to_dict()) == plan
    assert [str(one) for one in obstacles(plan.kept)] == [
        "2 different numbers of expert channels (16 in layer 1; 8 in layer 0)"
    ]


def test_the_importance_of_a_channel_is_the_sum_over_experts_of_equal_rank() -> None:
    values = np.array([5.0, 1.0, 3.0, 2.0, 6.0, 4.0])
    sizes = ModelSizes((replace(LAYER, n_experts=2, n_mlp_channels=3),), 0)
    order = ChannelOrder(sizes, [values])
    assert order.importance[0].tolist() == [1 + 2, 3 + 4, 5 + 6]
    assert order.kept(0, [1, 2]) == ((0, 2), (1, 2))


def test_equal_channels_of_an_expert_keep_their_order() -> None:
    sizes = ModelSizes((replace(LAYER, n_experts=1, n_mlp_channels=4096),), 0)
    importance = np.random.default_rng(0).integers(0, 3, 4096).astype(float)
    kept = ChannelOrder(sizes, [importance]).kept(0, range(1000))
    assert kept == (tuple(sorted(sorted(range(4096), key=importance.__getitem__)[:1000])),)


def test_widths_are_multiples_of_eight_and_of_what_the_study_asks() -> None:
    assert [options_for(SIZES, SelectionOptions(mlp_multiple_of=n)).mlp_multiple_of for n in (1, 3, 12, 16)] == [
        8, 24, 24, 16,
    ]  # fmt: skip
    dense = ModelSizes((DENSE,), 0)
    assert options_for(dense, SelectionOptions(mlp_multiple_of=3)).mlp_multiple_of == 3
    # The widths of experts stay as they are if experts are removed whole, or KV groups only.
    for sizes in (SIZES.with_experts_as_groups(), ModelSizes((replace(LAYER, n_mlp_channels=0),), 0)):
        assert options_for(sizes, OPTIONS).mlp_multiple_of == 1


@pytest.mark.parametrize("name", ["freeze_first_layers", "freeze_last_layers"])
def test_frozen_layers_contradict_equal_numbers_of_experts(name: str) -> None:
    with pytest.raises(UserError, match=f"selection.{name} 1 gives layers different numbers of experts"):
        check_experts(SIZES, 0.1, replace(OPTIONS, **{name: 1}))


@pytest.mark.parametrize(
    "other", [{"n_experts": 8}, {"experts_per_token": 1}], ids=["more experts", "fewer experts per token"]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_the_tightest_layer_limits_all(other: dict[str, int], is_first: bool) -> None:
    """A layer of 4 experts, 2 per token, can lose 2 experts, whatever the other layer could lose."""
    layers = (LAYER, replace(LAYER, **other))
    sizes = ModelSizes(layers if is_first else layers[::-1], other_params=0)
    step, total = sum(layer.expert_params for layer in sizes.layers), sizes.total_params
    assert check_experts(sizes, (2 * step + 1) / total, OPTIONS) == 2
    with pytest.raises(UserError, match=r"removing 3 of the 4 experts of each layer, but at most 2 can go"):
        check_experts(sizes, (3 * step + 1) / total, OPTIONS)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda layer: layer["expert_channels"].update(n=63), r"mask has 8 bytes for 63|each of the 4 kept experts"),
        (lambda layer: layer.pop("expert_channels"), r"plan.layers\[0\] has no expert_channels, but its experts lose"),
        (lambda layer: layer["mlp_channels"].update(n_kept=8, mask="/wA="),
         r"plan.layers\[0\].expert_channels: each of the 4 kept experts must keep 8 of 16 channels; make the"),
    ],
)  # fmt: skip
def test_damaged_plans_are_refused(change: object, line: str) -> None:
    plan = Plan.identity(SIZES)
    experts = {0: KeptExperts((0, 1, 2, 3), ((0, 1),) * 4), 1: plan.kept_experts[1]}
    plan = replace(plan, kept_experts=experts, kept_mlp_channels=((0, 1), plan.kept_mlp_channels[1]))
    content = plan.to_dict()
    assert Plan.from_dict(content) == plan
    change(content["layers"][0])  # type: ignore[operator]
    with pytest.raises(UserError, match=line):
        Plan.from_dict(content)


@pytest.mark.parametrize(
    ("sizes", "ratio", "options", "line"),
    [
        (ModelSizes((DENSE, DENSE), 1), 0.2, {}, r"units \[expert\]: the model has no experts, its MLPs are dense; l"),
        (SIZES, 0.3, {}, r"means removing 3 of the 4 experts of each layer, but at most 2 can go: each token is route"),
        (SIZES, 0.3, {}, r"each token is routed to 2; lower pruning_ratio to at most 0.299"),
        (SIZES, 0.25, {"max_layer_ratio": 0.25}, r"most 1 can go: selection.max_layer_ratio 0.25 and each token is ro"),
        (SIZES, 0.09, {}, r"removing 90 of 1,000 parameters, less than one expert of each layer \(100\); raise prunin"),
        (SIZES, 0.09, {}, r"raise pruning_ratio to at least 0.1"),
        (SIZES, 0.1, {"freeze_first_layers": 1}, r"selection.freeze_first_layers 1 gives layers different numbers of "),
        (SIZES, 0.1, {"collapse_below": 0.1}, r"selection.collapse_below 0.1 gives layers different numbers of expert"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_met_are_refused(
    sizes: ModelSizes, ratio: float, options: dict[str, float], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        check_request(sizes, ratio, SelectionOptions(**options), units=("expert",))  # type: ignore[arg-type]


def test_the_ratios_that_messages_name_can_be_met() -> None:
    assert check_experts(SIZES, 0.299, OPTIONS) == 2
    assert check_experts(SIZES, 0.1, OPTIONS) == 1
    assert check_experts(SIZES, 0.0, OPTIONS) == 0
    check_request(SIZES, 0.2, OPTIONS, units=("expert",))


def test_random_experts_differ_by_seed() -> None:
    plans = {
        make_plan(SIZES, replace(SETTINGS, criterion="random", seed=seed), None, None)[0].kept_experts[0].experts
        for seed in range(12)
    }
    assert len(plans) > 1
    assert all(len(kept) == 3 for kept in plans)


def test_incomplete_tables_are_refused() -> None:
    importance = table([(0, "experts", [4, 3, 2, 1]), (1, "experts", [1, 2, 3])])
    with pytest.raises(UserError, match="importance: 7 groups with n_samples 8, but the model has 8; delete the"):
        make_plan(SIZES, SETTINGS, importance, None)
