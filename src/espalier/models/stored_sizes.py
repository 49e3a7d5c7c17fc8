"""The sizes of a model from the shapes of its tensors and its config alone; no weights are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from espalier.models.sizes import LayerStructure, ModelStructure

ATTENTION_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP_PROJECTIONS = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PROJECTIONS = ATTENTION_PROJECTIONS + MLP_PROJECTIONS
# Biases on the output side are added whatever is removed, so they belong to no group.
_UNGROUPED = ("self_attn.o_proj.bias", "mlp.down_proj.bias")
_LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+)$")

Shapes = Mapping[str, tuple[int, ...]]


def structure_of(shapes: Shapes, config: Mapping[str, Any]) -> ModelStructure:
    """Read the structure of a decoder.

    Args:
        shapes: Shape of each parameter by name; tied embeddings once, no buffers.
        config: The model's config.json.
    """
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    other_params = 0
    for name, shape in shapes.items():
        if match := _LAYER.match(name):
            layers.setdefault(int(match[1]), {})[match[2]] = shape
        else:
            other_params += math.prod(shape)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return ModelStructure(tuple(_layer(layers[number], head_dim) for number in sorted(layers)), other_params)


def _layer(shapes: Shapes, head_dim: int) -> LayerStructure:
    n_kv_groups = shapes["self_attn.k_proj.weight"][0] // head_dim
    n_mlp_channels = shapes["mlp.up_proj.weight"][0]
    attention = _grouped_params(shapes, ATTENTION_PROJECTIONS)
    mlp = _grouped_params(shapes, MLP_PROJECTIONS)
    return LayerStructure(
        n_kv_groups=n_kv_groups,
        kv_group_params=attention // n_kv_groups,
        n_mlp_channels=n_mlp_channels,
        mlp_channel_params=mlp // n_mlp_channels,
        fixed_params=sum(map(math.prod, shapes.values())) - attention - mlp,
    )


def _grouped_params(shapes: Shapes, projections: tuple[str, ...]) -> int:
    names = {f"{projection}.{kind}" for projection in projections for kind in ("weight", "bias")} - set(_UNGROUPED)
    return sum(math.prod(shape) for name, shape in shapes.items() if name in names)
