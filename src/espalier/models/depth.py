"""Remove whole decoder layers from a model in memory, with everything that counts or lists its layers.

- The remaining layers are renumbered: each writes its keys and values to the KV cache under its `layer_idx`.
- transformers reads from the config how many layers run, how many the KV cache has, and which of them have a sliding
  window. So `num_hidden_layers` and the lists with one entry per layer (`layer_types`) are changed with the layers.
  `mlp_only_layers` and `decoder_sparse_step` (Qwen-MoE) say which of the remaining layers have experts.
  `max_window_layers` becomes the number of remaining layers among those it counted, and `per_layer_config`, which has
  other sizes for some layers, is renumbered.

Everything outside the layers stays as it is, tied embeddings included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from espalier.errors import UserError
from espalier.models.architecture import (
    DENSE_LAYERS,
    DIFFERING_LAYERS,
    EXPERT_STEP,
    FIRST_SLIDING_LAYER,
    LAYER,
    LAYERS,
    UNITS,
)

_SLIDES = "has_sliding_layers"
"""Attribute of stock models that says whether a mask for sliding layers is needed."""


def check_removed_layers(n_layers: int, removed: Sequence[int]) -> None:
    """Check the indices of layers to remove.

    Raises:
        UserError: If they do not increase, are no layers of the model, or are all of them.
    """
    wrong = [layer for layer in removed if not 0 <= layer < n_layers]
    if wrong:
        raise UserError(
            f"removed_layers: got index {wrong[0]}, but there are {n_layers} (0 to {n_layers - 1}); make the plan from "
            "this model"
        )
    if sorted(set(removed)) != list(removed):
        raise UserError("removed_layers: indices must increase, each given once; sort them and drop duplicates")
    if len(removed) == n_layers:
        raise UserError(f"removed_layers: got all {n_layers} layers of the model; keep at least one")


def remove_layers(model: nn.Module, removed: Sequence[int]) -> None:
    """Remove layers in place. Nothing is changed if there are none to remove.

    The config of the model is changed. Copy a config that other models share first.

    Args:
        model: A causal language model of transformers.
        removed: Indices of the layers to remove, in increasing order.

    Raises:
        UserError: If the indices are wrong (`check_removed_layers`).
    """
    if not removed:
        return
    path, _, name = LAYERS.rpartition(".")
    base = model.get_submodule(path)
    layers = list(getattr(base, name))
    check_removed_layers(len(layers), removed)
    kept = [index for index in range(len(layers)) if index not in set(removed)]
    setattr(base, name, nn.ModuleList([layers[index] for index in kept]))
    for index, layer in enumerate(getattr(base, name)):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = index
    _update_config(model.config, kept, len(layers))
    if hasattr(base, _SLIDES):
        setattr(base, _SLIDES, "sliding_attention" in model.config.layer_types)


def _update_config(config: Any, kept: Sequence[int], n_before: int) -> None:
    unit = UNITS[LAYER]
    lists = {}
    for name in unit.config_lists:
        values = getattr(config, name, None)
        if isinstance(values, list | tuple) and len(values) == n_before:
            lists[name] = [values[index] for index in kept]
    dense = getattr(config, DENSE_LAYERS, None)
    step = getattr(config, EXPERT_STEP, None) or 1
    n_first = getattr(config, FIRST_SLIDING_LAYER, None)
    differing = config.to_dict().get(DIFFERING_LAYERS) if getattr(config, "is_heterogeneous", False) else None
    for name in unit.config_sizes:
        setattr(config, name, len(kept))
    for name, values in lists.items():
        setattr(config, name, values)
    if dense is not None:
        with_experts = [(index + 1) % step == 0 and index not in dense for index in kept]
        setattr(config, DENSE_LAYERS, [new for new, has_some in enumerate(with_experts) if not has_some])
        setattr(config, EXPERT_STEP, 1)
    if isinstance(n_first, int):
        setattr(config, FIRST_SLIDING_LAYER, sum(index < n_first for index in kept) + max(0, n_first - n_before))
    if differing is not None:
        by_layer = {int(index): values for index, values in differing.items()}
        setattr(config, DIFFERING_LAYERS, {new: by_layer[index] for new, index in enumerate(kept) if index in by_layer})
