"""Conversion of a model that was pruned in memory to a class that transformers loads.

If all layers have one shape, this is the stock class of the base model. Otherwise it is a class of
`espalier.models.modeling_pruned`, whose config stores the sizes of each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from espalier.errors import UserError
from espalier.models import configuration_pruned, modeling_pruned
from espalier.models.architecture import EXPERT, EXPERT_FAMILIES, FAMILIES, LAYERS, UNITS
from espalier.models.decoder import head_dim
from espalier.planning.plan import Plan
from espalier.planning.stock import StockShape, obstacles, stock_kv_group_counts, stock_shape

STUB_CHANNELS = 32
"""Width of an MLP of zeros. A width of 1 is unsuitable for kernels and tensor parallelism."""


def find_stock_shape(plan: Plan, manifest: Mapping[str, Any], *, required: bool) -> StockShape | None:
    """Return the shape of a plan that stock model code loads; None if its layers differ.

    Args:
        plan: Pruning plan of the model.
        manifest: Manifest of the base model.
        required: Whether only stock checkpoints are wanted (`export.stock`).

    Raises:
        UserError: If the plan has no stock shape although one is required. The message says what is in the way.
    """
    config = manifest["config"] | {"model_type": manifest["model_type"]}
    counts = stock_kv_group_counts(plan.n_kv_groups[0], config)
    shape = None if manifest["trust_remote_code"] else stock_shape(plan.kept, counts)
    if required and shape is None:
        reasons = [str(obstacle) for obstacle in obstacles(plan.kept, counts)]
        raise UserError(
            f"export.stock: the plan of model {manifest['model']!r} has no stock shape: "
            f"{', and '.join(reasons) or 'its base model needs code of its own folder'}. Export it without "
            "export.stock, or plan with units: [layer] or allocation: same_shape"
        )
    return shape


def check_target(model: str, model_type: str) -> None:
    """Check that a model type can be exported with layers of different sizes.

    Raises:
        UserError: If it cannot be. The message lists the allowed types.
    """
    if model_type in EXPERT_FAMILIES:
        raise UserError(
            f"export: model {model!r} is of type {model_type!r}, whose layers have experts and all have one shape in a "
            "checkpoint; plan with units: [expert] or allocation: same_shape, or prune it in memory (docs/export.md)"
        )
    if model_type not in FAMILIES:
        raise UserError(
            f"export: model {model!r} is of type {model_type!r}, whose layers cannot differ in size in an exported "
            f"folder; allowed: {', '.join(FAMILIES)}. Leave it out of the export, or prune it in memory "
            "(docs/export.md)"
        )


def layer_sizes(plan: Plan, n_query_heads_per_group: int, *, stubs: bool) -> dict[str, dict[str, Any]]:
    """Return the content of `per_layer_config`: the sizes of each layer and the blocks that it skips.

    Args:
        plan: Pruning plan of the model.
        n_query_heads_per_group: Query heads per key/value head.
        stubs: Whether a removed block becomes a block of zeros (one KV group, or `STUB_CHANNELS` channels) instead of
            being skipped.
    """
    sizes: dict[str, dict[str, Any]] = {}
    for layer, kept in enumerate(layer for layer in plan.kept if not layer.is_removed):
        kept_kv, kept_mlp = kept.n_kv_groups, kept.n_mlp_channels
        n_kv = kept_kv or int(stubs)
        n_mlp = kept_mlp or (STUB_CHANNELS if stubs else 0)
        sizes[str(layer)] = {
            "num_attention_heads": n_kv * n_query_heads_per_group,
            "num_key_value_heads": n_kv,
            "intermediate_size": n_mlp,
            "skip": [name for name, size in (("attention", n_kv), ("mlp", n_mlp)) if not size],
        }
    return sizes


def export_config(base: PreTrainedConfig, plan: Plan, *, stubs: bool, tied: bool) -> PreTrainedConfig:
    """Return the config of an exported model.

    Args:
        base: Config of the base model, of a type that `check_target` accepts.
        plan: Pruning plan of the model.
        stubs: As in `layer_sizes`.
        tied: Whether input and output embeddings share one matrix. The base model's config may be wrong about this.
    """
    name = FAMILIES[base.model_type].name
    own = {"model_type", "architectures", "auto_map", "tie_word_embeddings"}
    values = {key: value for key, value in base.to_diff_dict().items() if key not in own}
    n_query = base.num_attention_heads // base.num_key_value_heads
    causal = f"Pruned{name}ForCausalLM"
    config: PreTrainedConfig = getattr(configuration_pruned, f"Pruned{name}Config")(
        **values,
        tie_word_embeddings=tied,
        architectures=[causal],
        auto_map={
            "AutoConfig": f"configuration_pruned.Pruned{name}Config",
            "AutoModel": f"modeling_pruned.Pruned{name}Model",
            "AutoModelForCausalLM": f"modeling_pruned.{causal}",
        },
        per_layer_config=layer_sizes(plan, n_query, stubs=stubs),
    )
    return config


def stock_model(pruned: PreTrainedModel, shape: StockShape) -> PreTrainedModel:
    """Return a pruned model as an instance of its stock class, with the sizes of its layers in a stock config.

    The new model shares its weights with `pruned`.

    Args:
        pruned: The model after `espalier.models.surgery.prune`, on one device.
        shape: Shape of its layers.

    Raises:
        UserError: If the base model is no stock model.
        RuntimeError: If the names or shapes of the weights do not match the class.
    """
    _check_stock_class(pruned)
    base, tied = pruned.config, _is_tied(pruned)
    n_query = base.num_attention_heads // base.num_key_value_heads
    values = base.to_dict() | {
        "num_attention_heads": n_query * shape.n_kv_groups,
        "num_key_value_heads": shape.n_kv_groups,
        **_mlp_sizes(base, shape),
        "tie_word_embeddings": tied,
        "architectures": [type(pruned).__name__],
    }
    if shape.n_kv_groups != base.num_key_value_heads or getattr(base, "head_dim", None):
        # Without it, stock code computes the head size from the number of heads.
        values["head_dim"] = head_dim(pruned.get_submodule(LAYERS)[0])
    config = type(base).from_dict(values)
    with torch.device("meta"):
        model = type(pruned)(config)
    return _with_weights(model, pruned.state_dict())


def _mlp_sizes(base: PreTrainedConfig, shape: StockShape) -> dict[str, int]:
    """Return the values of the config that count MLP channels, experts and their channels."""
    sizes = {} if shape.n_mlp_channels is None else {"intermediate_size": shape.n_mlp_channels}
    if shape.n_experts is None or shape.n_expert_channels is None:
        return sizes
    family = EXPERT_FAMILIES.get(base.model_type)
    if family is None:
        raise UserError(
            f"export: models of type {base.model_type!r} have experts and are not in the table of families; allowed: "
            f"{', '.join(EXPERT_FAMILIES)}. Leave it out of the export, or prune it in memory (docs/export.md)"
        )
    counts = {key for key in UNITS[EXPERT].config_sizes if key in base.to_dict()}
    return sizes | {family.width: shape.n_expert_channels} | dict.fromkeys(counts, shape.n_experts)


def export_model(pruned: PreTrainedModel, plan: Plan, *, stubs: bool) -> PreTrainedModel:
    """Return a pruned model as an instance of the class that loads the exported folder.

    The new model shares its weights with `pruned`. Only the weights of stubs are new tensors, all zeros.

    Args:
        pruned: The model after `espalier.models.surgery.prune`, on one device.
        plan: The plan that the model was pruned with.
        stubs: As in `layer_sizes`.

    Raises:
        UserError: If the base model cannot be exported.
        RuntimeError: If the names or shapes of the weights do not match the class.
    """
    check_target(pruned.name_or_path, pruned.config.model_type)
    _check_stock_class(pruned)
    config = export_config(pruned.config, plan, stubs=stubs, tied=_is_tied(pruned))
    with torch.device("meta"):
        model: PreTrainedModel = getattr(modeling_pruned, config.architectures[0])(config)
    weights = pruned.state_dict()
    if stubs:
        weights |= {
            name: torch.zeros(room.shape, dtype=pruned.dtype, device=pruned.device)
            for name, room in model.state_dict().items()
            if name not in weights
        }
    return _with_weights(model, weights)


def _check_stock_class(pruned: PreTrainedModel) -> None:
    if not type(pruned).__module__.startswith("transformers."):
        raise UserError(f"export: {type(pruned).__name__} is code of the model's own folder; only stock models can be")


def _is_tied(model: PreTrainedModel) -> bool:
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def _with_weights(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Replace the weights of a model on the device meta, and return it."""
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    return model.eval()
