"""Sizes of models and the table of their groups."""

import json

import pytest

from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable

UNEVEN = ModelSizes(
    (LayerSizes(2, 40, 3, 6, 8), LayerSizes(0, 40, 2, 7, 8), LayerSizes(1, 30, 0, 6, 8)), other_params=100
)


def test_parameters_add_up() -> None:
    first = UNEVEN.layers[0]
    assert (first.attention_params, first.mlp_params) == (80, 18)  # 2 * 40 and 3 * 6
    assert (first.prunable_params, first.params) == (98, 106)  # + 8 of the norms
    assert UNEVEN.n_layers == 3
    assert UNEVEN.prunable_params == 98 + 2 * 7 + 30
    assert UNEVEN.total_params == 98 + 14 + 30 + 3 * 8 + 100


def test_llama_3_8b_has_its_published_size(llama_3_8b: ModelSizes) -> None:
    assert llama_3_8b.total_params == 8_030_261_248


def test_sizes_survive_json() -> None:
    assert ModelSizes.from_dict(json.loads(json.dumps(UNEVEN.to_dict()))) == UNEVEN


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="counts cannot be negative"):
        LayerSizes(-1, 40, 3, 6, 8)
    with pytest.raises(ValueError, match="at least one parameter"):
        LayerSizes(1, 40, 3, 0, 8)


def test_groups_are_listed_by_layer_block_and_group() -> None:
    groups = GroupTable.of(UNEVEN)
    assert len(groups) == 8
    assert groups.layer.tolist() == [0, 0, 0, 0, 0, 1, 1, 2]
    assert groups.block.tolist() == [0, 0, 1, 1, 1, 1, 1, 0]
    assert groups.group.tolist() == [0, 1, 0, 1, 2, 0, 1, 0]
    assert groups.cost.tolist() == [40, 40, 6, 6, 6, 7, 7, 30]
    assert [array.dtype.name for array in (groups.layer, groups.block, groups.group, groups.cost)] == [
        "int32",
        "int8",
        "int32",
        "int64",
    ]
    assert groups.name(6) == "layer 1, MLP channel 1"
    assert groups.name(7) == "layer 2, KV group 0"


def test_model_without_layers_has_no_groups() -> None:
    assert len(GroupTable.of(ModelSizes((), 10))) == 0
