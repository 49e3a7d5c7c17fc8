"""The model that is exported: the pruned one in memory, as a transformers class that its config describes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from espalier.errors import UserError
from espalier.models import configuration_pruned, modeling_pruned
from espalier.planning.plan import Plan

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""Names of transformers' classes by `model_type`, for what can be exported."""

STUB_CHANNELS = 32
"""Width of an MLP of zeros; kernels and tensor parallelism want no single channel."""


def check_target(model: str, model_type: str) -> None:
    """Refuse models that no modelling class here can express.

    Raises:
        UserError: With the types that can be exported.
    """
    if model_type not in CLASSES:
        raise UserError(
            f"export: model {model!r} is of type {model_type!r}, whose layers cannot differ in size in an exported "
            f"folder; allowed: {', '.join(CLASSES)}. Leave it out of the export, or prune it in memory (docs/export.md)"
        )


def layer_sizes(plan: Plan, n_query_heads_per_group: int, *, stubs: bool) -> dict[str, dict[str, Any]]:
    """Return what `per_layer_config` holds: the sizes of every layer and the blocks that it skips.

    Args:
        plan: What each layer keeps.
        n_query_heads_per_group: Query heads on each key/value head.
        stubs: Whether a removed block gets room for zeros (one KV group, `STUB_CHANNELS` channels).
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
    """Make the config of an exported model from that of its base model, which `check_target` let through.

    Args:
        base: Config of the base model.
        plan: What each layer keeps.
        stubs: As `layer_sizes`.
        tied: Whether input and output embeddings are one matrix; the base model's config may say so and be wrong.
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
    """Give the weights of a pruned model to the class that its export is loaded with.

    Weights are shared, not copied; those of stubs are zeros.

    Args:
        pruned: The model after `espalier.models.surgery.prune`, on one device.
        plan: The plan that it was pruned by.
        stubs: As `layer_sizes`.

    Raises:
        UserError: If the base model cannot be exported.
        RuntimeError: If names or shapes of the weights are not those of the class.
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
