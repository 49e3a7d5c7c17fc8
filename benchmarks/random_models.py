"""Models with random weights for the benchmarks, created on the device."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from espalier.models.decoder import decoder_layers, n_kv_groups, n_mlp_channels, params_per_group
from espalier.models.sizes import LayerStructure, ModelStructure

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


def structure_of(model: PreTrainedModel) -> ModelStructure:
    """Return the sizes of a model in memory."""
    layers = tuple(
        LayerStructure(
            n_kv_groups(layer),
            params_per_group(layer, "attention"),
            n_mlp_channels(layer),
            params_per_group(layer, "mlp"),
            sum(p.numel() for name, p in layer.named_parameters() if "norm" in name),
        )
        for layer in decoder_layers(model)
    )
    return ModelStructure(layers, model.num_parameters() - sum(layer.params for layer in layers))
