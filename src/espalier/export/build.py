"""Conversion of a model that was pruned in memory to a transformers class whose config stores the layer sizes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from espalier.errors import UserError
from espalier.models import configuration_pruned, modeling_pruned
from espalier.planning.plan import Plan

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""Prefixes of the transformers class names, by `model_type`, of the models that can be exported."""

STUB_CHANNELS = 32
"""Width of an MLP of zeros. A width of 1 is unsuitable for kernels and tensor parallelism."""


def check_target(model: str, model_type: str) -> None:
    """Check that a model type can be exported.

    Raises:
        UserError: If it cannot be. The message lists the allowed types.
    """
    if model_type not in CLASSES:
        raise UserError(
            f"export: model {model!r} is of type {model_type!r}, whose layers cannot differ in size in an exported "
            f"folder; allowed: {', '.join(CLASSES)}. Leave it out of the export, or prune it in memory (docs/export.md)"
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
    for layer, (kept_kv, kept_mlp) in enumerate(zip(plan.n_kept_kv_groups, plan.n_kept_mlp_channels, strict=True)):
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
    name = CLASSES[base.model_type]
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
    if not type(pruned).__module__.startswith("transformers."):
        raise UserError(f"export: {type(pruned).__name__} is code of the model's own folder; only stock models can be")
    tied = pruned.get_output_embeddings().weight is pruned.get_input_embeddings().weight
    config = export_config(pruned.config, plan, stubs=stubs, tied=tied)
    with torch.device("meta"):
        model: PreTrainedModel = getattr(modeling_pruned, config.architectures[0])(config)
    weights = pruned.state_dict()
    if stubs:
        weights |= {
            name: torch.zeros(room.shape, dtype=pruned.dtype, device=pruned.device)
            for name, room in model.state_dict().items()
            if name not in weights
        }
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    return model.eval()
