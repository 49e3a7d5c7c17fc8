"""Phi-3 with its fused projections is the same model as a Llama with the parts as separate projections."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel

from espalier.calibration.importance import measure_importance
from espalier.calibration.pass_size import PassSettings
from espalier.models.decoder import projections
from espalier.models.padding import pad_widths
from espalier.models.sizes import sizes_from_shapes
from espalier.models.surgery import prune
from espalier.recovery.lora import remaining_projections

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3, "rms_norm_eps": 1e-5,
    "pad_token_id": None, "eos_token_id": None, "bos_token_id": None,
}  # fmt: skip
# 4 query heads, 2 key heads and 2 value heads of size 8.
PARTS = {"qkv_proj": (32, 16, 16), "gate_up_proj": (48, 48)}
NAMES = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
PLAN = ([[1], [0]], [[3, 7, 11, 30], [0, 1, 47]])


@pytest.fixture
def fused() -> PreTrainedModel:
    torch.manual_seed(0)
    return Phi3ForCausalLM(Phi3Config(**SIZES)).eval()


@pytest.fixture
def separate(fused: PreTrainedModel) -> PreTrainedModel:
    tensors = {}
    for name, tensor in fused.state_dict().items():
        module = name.split(".")[-2]
        if module in PARTS:
            for part, piece in zip(NAMES[module], tensor.split(PARTS[module]), strict=True):
                tensors[name.replace(module, part)] = piece.clone()
        else:
            tensors[name] = tensor.clone()
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    model.load_state_dict(tensors)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(24).view(2, 12), use_cache=False).logits


def test_surgery_and_padding_cut_every_part(fused: PreTrainedModel, separate: PreTrainedModel) -> None:
    torch.testing.assert_close(logits(fused), logits(separate))
    for model in (fused, separate):
        prune(model, *PLAN)
    expected = logits(separate)
    torch.testing.assert_close(logits(fused), expected)
    assert fused.num_parameters() == separate.num_parameters()
    # One KV group: 2 query heads, a key head and a value head of size 8.
    assert fused.model.layers[0].self_attn.qkv_proj.weight.shape == (32, 32)
    assert fused.model.layers[0].mlp.gate_up_proj.weight.shape == (8, 32)
    assert pad_widths(fused, 8) == 2
    assert [tuple(layer.mlp.gate_up_proj.weight.shape) for layer in fused.model.layers] == [(16, 32), (16, 32)]
    torch.testing.assert_close(logits(fused), expected)


def test_importance_and_sizes_are_those_of_the_separate_projections(
    fused: PreTrainedModel, separate: PreTrainedModel
) -> None:
    settings = PassSettings(token_budget=24)
    found, expected = (
        measure_importance(
            model, torch.arange(24).view(2, 12), [1, 2], criterion="taylor", settings=settings
        ).importance
        for model in (fused, separate)
    )
    for column in ("n_samples", "layer", "block", "group"):
        assert list(found[column]) == list(expected[column])
    np.testing.assert_allclose(found["importance"].astype(float), expected["importance"].astype(float), rtol=1e-4)
    sizes = [
        sizes_from_shapes({name: tuple(each.shape) for name, each in model.named_parameters()}, SIZES)
        for model in (fused, separate)
    ]
    assert sizes[0] == sizes[1]


def test_a_fused_projection_is_meant_by_the_name_of_a_part(fused: PreTrainedModel) -> None:
    found = [projection.parts for projection in projections(fused)]
    assert found == [(32, 16, 16), (), (48, 48), ()] * 2
    assert remaining_projections(fused, ["v_proj", "down_proj"]) == [
        f"model.layers.{layer}.{name}" for layer in range(2) for name in ("self_attn.qkv_proj", "mlp.down_proj")
    ]
