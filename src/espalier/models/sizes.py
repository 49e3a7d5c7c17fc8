"""Sizes of a decoder: the number of groups of each layer, and their parameters.

params(layer) = n_kv_groups * kv_group_params + n_mlp_channels * mlp_channel_params + fixed_params
total_params  = sum over layers of params(layer) + other_params

A KV group is a key/value head with the query heads that share it: its rows of q_proj, k_proj, v_proj (and their
biases) and its columns of o_proj. An MLP channel is a row of gate_proj and up_proj and a column of down_proj. Fused
projections have these rows in each of their parts.

In a layer with experts, an MLP channel is one channel of each expert, and

params(expert) = n_mlp_channels * mlp_channel_params / n_experts + router_params

Router rows count as fixed, unless experts are the units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from espalier.models.architecture import (
    BLOCKS,
    EXPERTS,
    KV_GROUP,
    LAYERS,
    LAYOUTS,
    MLP_CHANNEL,
    STORED_EXPERTS,
    BlockNames,
    find_layout,
)


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one decoder layer.

    `fixed_params` belong to no group: norms, biases of o_proj and down_proj. They go only with the whole layer.

    A dense layer has no experts. Otherwise, `n_mlp_channels` are the channels of each expert, `mlp_channel_params` the
    parameters of one channel of all experts, `router_params` those of the router's row of one expert, and
    `experts_per_token` is how many experts the router chooses.
    """

    n_kv_groups: int
    kv_group_params: int
    n_mlp_channels: int
    mlp_channel_params: int
    fixed_params: int
    n_experts: int = 0
    router_params: int = 0
    experts_per_token: int = 0

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

    @property
    def expert_params(self) -> int:
        """Parameters of one expert with its row of the router; 0 in a dense layer."""
        return self.mlp_params // self.n_experts + self.router_params if self.n_experts else 0

    def kept_params(self, n_kv_groups: int, n_mlp_channels: int, n_experts: int | None = None) -> tuple[int, int, int]:
        """Return the parameters of attention, of the MLP and of the rest, of which the layer keeps so many groups.

        Args:
            n_kv_groups: KV groups that it keeps.
            n_mlp_channels: MLP channels that it keeps; those of each expert if it has experts.
            n_experts: Experts that it keeps; None keeps all.
        """
        mlp, fixed = n_mlp_channels * self.mlp_channel_params, self.fixed_params
        if n_experts is not None and self.n_experts:
            mlp = mlp // self.n_experts * n_experts
            fixed -= (self.n_experts - n_experts) * self.router_params
        return n_kv_groups * self.kv_group_params, mlp, fixed

    def with_experts_as_groups(self) -> LayerSizes:
        """Return the sizes with experts in the place of MLP channels; all other parameters count as fixed."""
        if not self.n_experts:
            return self.with_groups_of(())
        return LayerSizes(
            0, 1, self.n_experts, self.expert_params, self.params - self.n_experts * self.expert_params,
            experts_per_token=self.experts_per_token,
        )  # fmt: skip

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

    def with_experts_as_groups(self) -> ModelSizes:
        """Return the sizes with experts in the place of MLP channels; all other parameters count as fixed."""
        return replace(self, layers=tuple(layer.with_experts_as_groups() for layer in self.layers))

    @property
    def has_experts(self) -> bool:
        """Whether some layer has experts."""
        return any(layer.n_experts for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return {"layers": [_layer_dict(layer) for layer in self.layers], "other_params": self.other_params}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSizes:
        """Read the JSON values that `to_dict` returned."""
        return cls(tuple(LayerSizes(**layer) for layer in values["layers"]), values["other_params"])


def _layer_dict(layer: LayerSizes) -> dict[str, int]:
    """Return the sizes of a layer as JSON values; those of experts only where there are some."""
    values = asdict(layer)
    return values if layer.n_experts else {key: value for key, value in values.items() if key not in _OF_EXPERTS}


_OF_EXPERTS = {"n_experts", "router_params", "experts_per_token"}
# The bias of an output projection is added even if all groups are removed, so it belongs to no group.
_UNGROUPED = {f"{block.writer_path}.bias" for block in BLOCKS.values()}
_ATTENTION_OUTPUT = re.compile(rf"^{re.escape(LAYERS)}\.\d+\.{re.escape(BLOCKS['attention'].writer_path)}\.weight$")
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
    head_dim = head_size(shapes, config)
    chosen = config.get("num_experts_per_tok") or 0
    return ModelSizes(tuple(_layer_sizes(layers[number], head_dim, chosen) for number in sorted(layers)), other_params)


def head_size(shapes: Shapes, config: Mapping[str, Any]) -> int:
    """Return the size of an attention head.

    If config.json does not have it, transformers uses the default of the class, which is a fixed number in Qwen3,
    Gemma and other families. So it is computed from the weights: the columns of an output projection are those of all
    query heads.

    Args:
        shapes: Shape of each parameter by name.
        config: Content of the model's config.json.
    """
    if config.get("head_dim"):
        return int(config["head_dim"])
    heads = config["num_attention_heads"]
    columns = next((shape[-1] for name, shape in shapes.items() if _ATTENTION_OUTPUT.match(name) and shape), 0)
    return int(config["hidden_size"] if not columns or columns % heads else columns) // int(heads)


def merge_experts(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters in memory, given those in a checkpoint that stores each expert separately.

    Args:
        shapes: Shape of each tensor of a checkpoint, complete and with equal experts in a layer.
    """
    merged: dict[str, tuple[int, ...]] = {}
    counts: dict[tuple[str, str], int] = {}
    for name, shape in shapes.items():
        stored = find_stored_expert(name)
        if stored is None:
            merged[name] = shape
        elif stored.part == "router":
            merged[f"{stored.prefix}{EXPERTS.router_path}"] = shape
        else:
            key = (stored.prefix, stored.part)
            counts[key] = max(counts.get(key, 0), stored.expert + 1)
            if stored.part == "down":
                merged[f"{stored.prefix}{EXPERTS.writer_path}"] = (counts[key], *shape)
            elif stored.part == "up":
                merged[f"{stored.prefix}{EXPERTS.reader_path}"] = (counts[key], 2 * shape[0], *shape[1:])
    return merged


class StoredExpert(NamedTuple):
    """What a tensor of a checkpoint belongs to: `part` is gate, up or down of an expert, or the router (-1)."""

    prefix: str
    part: str
    expert: int


def find_stored_expert(name: str) -> StoredExpert | None:
    """Return which expert a tensor of a checkpoint belongs to; None if it belongs to none or is merged already."""
    for pattern, part in _STORED:
        if match := pattern.match(name):
            return StoredExpert(match[1], part, int(match[2]) if part != "router" else -1)
    return None


def _stored_pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of the tensors at a path within a layer, with the prefix and the number of the expert."""
    within = re.escape(path).replace(re.escape("{}"), r"(\d+)")
    return re.compile(rf"^({re.escape(LAYERS)}\.\d+\.){within}$")


_STORED = tuple((_stored_pattern(path), part) for stored in STORED_EXPERTS for part, path in stored._asdict().items())


def _layer_sizes(shapes: Shapes, head_dim: int, experts_per_token: int) -> LayerSizes:
    if EXPERTS.reader_path in shapes:
        return _sizes_with_experts(shapes, head_dim, experts_per_token)
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


def _sizes_with_experts(shapes: Shapes, head_dim: int, experts_per_token: int) -> LayerSizes:
    layout = find_layout("attention", modules_of(shapes)) or BLOCKS["attention"]
    n_kv_groups, attention = _counted_rows(shapes, layout) // head_dim, _grouped_params(shapes, layout.paths)
    n_experts, _, width = shapes[EXPERTS.writer_path]
    mlp = math.prod(shapes[EXPERTS.reader_path]) + math.prod(shapes[EXPERTS.writer_path])
    return LayerSizes(
        n_kv_groups=n_kv_groups,
        kv_group_params=attention // n_kv_groups,
        n_mlp_channels=width,
        mlp_channel_params=mlp // width,
        fixed_params=sum(map(math.prod, shapes.values())) - attention - mlp,
        n_experts=n_experts,
        router_params=math.prod(shapes[EXPERTS.router_path]) // n_experts,
        experts_per_token=experts_per_token,
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
