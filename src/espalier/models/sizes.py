"""Sizes of a decoder: the number of groups of each layer, and their parameters.

params(layer) = n_kv_groups * kv_group_params + n_mlp_channels * mlp_channel_params + fixed_params
total_params  = sum over layers of params(layer) + other_params

A KV group is a key/value head with the query heads that share it: its rows of q_proj, k_proj, v_proj (and their
biases) and its columns of o_proj. An MLP channel is a row of gate_proj and up_proj and a column of down_proj. Fused
projections have these rows in each of their parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from espalier.models.architecture import BLOCKS, KV_GROUP, LAYERS, LAYOUTS, MLP_CHANNEL, BlockNames, find_layout


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one decoder layer.

    `fixed_params` belong to no group: norms, biases of o_proj and down_proj. They go only with the whole layer.
    """

    n_kv_groups: int
    kv_group_params: int
    n_mlp_channels: int
    mlp_channel_params: int
    fixed_params: int

    def __post_init__(self) -> None:
        if min(self.n_kv_groups, self.n_mlp_channels, self.fixed_params) < 0:
            raise ValueError(f"counts cannot be negative: {self}")
        if min(self.kv_group_params, self.mlp_channel_params) < 1:
            raise ValueError(f"a KV group and an MLP channel have at least one parameter: {self}")

    @property
    def attention_params(self) -> int:
        """Parameters of all KV groups."""
        return self.n_kv_groups * self.kv_group_params

    @property
    def mlp_params(self) -> int:
        """Parameters of all MLP channels."""
        return self.n_mlp_channels * self.mlp_channel_params

    @property
    def prunable_params(self) -> int:
        """Parameters that can be removed."""
        return self.attention_params + self.mlp_params

    @property
    def params(self) -> int:
        """All parameters of the layer, which are the cost of the unit `layer`."""
        return self.prunable_params + self.fixed_params

    def with_groups_of(self, units: Collection[str]) -> LayerSizes:
        """Return the sizes with only the groups of some units; the parameters of other groups count as fixed."""
        sizes = self
        if KV_GROUP not in units:
            sizes = replace(sizes, n_kv_groups=0, fixed_params=sizes.fixed_params + self.attention_params)
        if MLP_CHANNEL not in units:
            sizes = replace(sizes, n_mlp_channels=0, fixed_params=sizes.fixed_params + self.mlp_params)
        return sizes


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a decoder. `other_params` are outside the layers: embeddings, final norm, an untied head."""

    layers: tuple[LayerSizes, ...]
    other_params: int

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def prunable_params(self) -> int:
        """Parameters that can be removed with groups."""
        return sum(layer.prunable_params for layer in self.layers)

    @property
    def total_params(self) -> int:
        """All parameters, embeddings included; tied weights count once."""
        return sum(layer.params for layer in self.layers) + self.other_params

    def with_groups_of(self, units: Collection[str]) -> ModelSizes:
        """Return the sizes with only the groups of some units; the parameters of other groups count as fixed."""
        return replace(self, layers=tuple(layer.with_groups_of(units) for layer in self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return {"layers": [asdict(layer) for layer in self.layers], "other_params": self.other_params}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSizes:
        """Read the JSON values that `to_dict` returned."""
        return cls(tuple(LayerSizes(**layer) for layer in values["layers"]), values["other_params"])


# The bias of an output projection is added even if all groups are removed, so it belongs to no group.
_UNGROUPED = {f"{block.writer_path}.bias" for block in BLOCKS.values()}
_LAYER_PARAMETER = re.compile(rf"^{re.escape(LAYERS)}\.(\d+)\.(.+)$")

Shapes = Mapping[str, tuple[int, ...]]


def sizes_from_shapes(shapes: Shapes, config: Mapping[str, Any]) -> ModelSizes:
    """Compute the sizes of a decoder from the shapes of its parameters.

    Args:
        shapes: Shape of each parameter by name, without buffers. Tied embeddings occur once.
        config: Content of the model's config.json.
    """
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    other_params = 0
    for name, shape in shapes.items():
        if match := _LAYER_PARAMETER.match(name):
            layers.setdefault(int(match[1]), {})[match[2]] = shape
        else:
            other_params += math.prod(shape)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return ModelSizes(tuple(_layer_sizes(layers[number], head_dim) for number in sorted(layers)), other_params)


def _layer_sizes(shapes: Shapes, head_dim: int) -> LayerSizes:
    layouts = {block: find_layout(block, modules_of(shapes)) or BLOCKS[block] for block in LAYOUTS}
    n_kv_groups = _counted_rows(shapes, layouts["attention"]) // head_dim
    n_mlp_channels = _counted_rows(shapes, layouts["mlp"])
    attention = _grouped_params(shapes, layouts["attention"].paths)
    mlp = _grouped_params(shapes, layouts["mlp"].paths)
    return LayerSizes(
        n_kv_groups=n_kv_groups,
        kv_group_params=attention // n_kv_groups,
        n_mlp_channels=n_mlp_channels,
        mlp_channel_params=mlp // n_mlp_channels,
        fixed_params=sum(map(math.prod, shapes.values())) - attention - mlp,
    )


def modules_of(names: Collection[str]) -> set[str]:
    """Return the names of the modules that have a weight among these names of parameters."""
    return {name.removesuffix(".weight") for name in names if name.endswith(".weight")}


def _counted_rows(shapes: Shapes, layout: BlockNames) -> int:
    rows = shapes[f"{layout.counted_path}.weight"][0]
    return layout.part_sizes(layout.counted, rows, shapes[f"{layout.writer_path}.weight"][1])[-1]


def _grouped_params(shapes: Shapes, projections: tuple[str, ...]) -> int:
    names = {f"{projection}.{kind}" for projection in projections for kind in ("weight", "bias")} - _UNGROUPED
    return sum(math.prod(shape) for name, shape in shapes.items() if name in names)
