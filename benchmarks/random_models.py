"""Models with random weights for the benchmarks, created on the device."""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from espalier.models.decoder import decoder_layers, n_kv_groups, n_mlp_channels, params_per_group
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.models.surgery import prune
from espalier.planning.groups import GroupTable
from espalier.planning.plan import Plan
from espalier.planning.select import SelectionOptions, select_groups

SHAPES = {
    "sandbox": LlamaConfig(
        vocab_size=800, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=256,
    ),
    "50m": LlamaConfig(
        vocab_size=32_000, hidden_size=512, intermediate_size=1_536, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2_048,
    ),
    # A small vocabulary and many layers, so that half of the parameters can be pruned.
    "58m": LlamaConfig(
        vocab_size=8_000, hidden_size=512, intermediate_size=1_536, num_hidden_layers=16, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2_048,
    ),
    "llama-3-8b": LlamaConfig(
        vocab_size=128_256, hidden_size=4_096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8_192, rope_theta=500_000.0,
    ),
    "qwen2.5-7b": Qwen2Config(
        vocab_size=152_064, hidden_size=3_584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, max_position_embeddings=32_768, rope_theta=1_000_000.0,
    ),
}  # fmt: skip


def random_model(shape: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    with device:
        return AutoModelForCausalLM.from_config(SHAPES[shape], dtype=dtype).eval()


def prune_at_random(model: PreTrainedModel, ratio: float) -> None:
    """Remove a share of the parameters by random scores. Widths differ from layer to layer, as in a real plan."""
    sizes = model_sizes(model)
    groups = GroupTable.of(sizes)
    per_layer = 1 + np.random.default_rng(1).random(sizes.n_layers)
    scores = np.random.default_rng(0).random(len(groups)) * per_layer[groups.layer]
    plan = Plan.from_mask(groups, sizes, select_groups(groups, sizes, scores, ratio, SelectionOptions()))
    prune(model, plan.kept_kv_groups, plan.kept_mlp_channels)


def model_sizes(model: PreTrainedModel) -> ModelSizes:
    """Return the sizes of a model in memory."""
    layers = tuple(
        LayerSizes(
            n_kv_groups(layer),
            params_per_group(layer, "attention"),
            n_mlp_channels(layer),
            params_per_group(layer, "mlp"),
            sum(p.numel() for name, p in layer.named_parameters() if "norm" in name),
        )
        for layer in decoder_layers(model)
    )
    return ModelSizes(layers, model.num_parameters() - sum(layer.params for layer in layers))
