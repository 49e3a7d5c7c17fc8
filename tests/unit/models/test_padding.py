"""Padding of MLP widths: exact, at the widths that suit a device, and without other changes."""

import pytest
import torch

from espalier.models.padding import pad_widths, width_multiple
from espalier.models.surgery import prune
from tests.unit.conftest import random_model, with_biases

# Layer 0 has no attention, and layer 2 no MLP.
KV_GROUPS = [(), (1,), (0, 1)]
CHANNELS = [tuple(range(0, 39, 3)), tuple(range(40)), ()]


def test_widths_suit_device_and_dtype() -> None:
    gpu = torch.device("cuda")
    assert [width_multiple(gpu, dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)] == [8, 8, 4]
    cpu = torch.device("cpu")
    assert [width_multiple(cpu, dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)] == [32, 32, 1]


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("llama", {"mlp_bias": True}), ("qwen2", {})],
    ids=["llama", "biases of the MLP", "qwen2"],
)
def test_padding_is_exact_and_changes_only_the_widths(architecture: str, changes: dict[str, bool]) -> None:
    model = with_biases(random_model(architecture, 50, num_hidden_layers=3, **changes))
    prune(model, KV_GROUPS, CHANNELS)
    model.model.layers[0].mlp.gate_proj.weight.requires_grad_(requires_grad=False)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = model(ids).logits
        assert pad_widths(model, 8) == 1  # 13 channels; 40 is a multiple
        torch.testing.assert_close(model(ids).logits, expected)
    first, second, _ = (layer.mlp for layer in model.model.layers)
    assert (first.intermediate_size, second.intermediate_size) == (16, 40)
    assert (first.down_proj.in_features, first.up_proj.out_features) == (16, 16)
    assert not first.gate_proj.weight.requires_grad
    assert first.up_proj.weight.requires_grad
    assert first.up_proj.weight[13:].abs().sum() == first.down_proj.weight[:, 13:].abs().sum() == 0
