"""Tiny pruned models, saved as the workflow exports them, and the handling of tests that need llama.cpp."""

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from espalier.export.gguf import check, write
from espalier.models.surgery import prune
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from tests.unit.conftest import random_model, with_biases

N_LAYERS = 4
KV_GROUPS = [[0, 1], [1], [0], [0, 1]]
MLP_CHANNELS = [list(range(48)), list(range(3, 20)), list(range(40)), [1, 2, 5, 8, 13]]


@pytest.fixture(autouse=True)
def _llama(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip tests marked `llama` if llama.cpp is not installed; otherwise let them fail if a file was not checked."""
    if not request.node.get_closest_marker("llama"):
        return
    if importlib.util.find_spec("llama_cpp") is None:
        reason = "llama-cpp-python is not installed (requirements-llama.txt)"
        if os.environ.get("CI"):
            pytest.fail(reason)  # in CI nobody would notice the skipped tests
        pytest.skip(reason)

    def check_file(*arguments: Any) -> dict[str, Any]:
        facts = check.check_file(*arguments)
        assert facts["checked"], facts["reason"]
        return facts

    monkeypatch.setattr(write, "check_file", check_file)


@pytest.fixture(scope="session")
def tokenizers(pages: list[str]) -> dict[str, PreTrainedTokenizerFast]:
    """Return the three types of tokenizer of the sandbox, by name."""
    return {
        name: wrap(train_tokenizer(name, pages, 500), model_max_length=128, chat=True)
        for name in ("llama", "qwen2", "mistral")
    }


def four_layers(architecture: str, vocab_size: int, **changes: object) -> PreTrainedModel:
    """Return a random model with nonzero biases and a context that is long enough for the texts of the check."""
    shape = {"num_hidden_layers": N_LAYERS, "max_position_embeddings": 256, "initializer_range": 0.2}
    model = with_biases(random_model(architecture, vocab_size, **(shape | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # all 1 in a new model, so an exchange of two norms would not show
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    return model


def cut(
    model: PreTrainedModel,
    kv_groups: Sequence[Sequence[int]] = KV_GROUPS,
    mlp_channels: Sequence[Sequence[int]] = MLP_CHANNELS,
) -> PreTrainedModel:
    """Prune a model and return it."""
    prune(model, kv_groups, mlp_channels)
    return model


def save_pruned(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a pruned model as the workflow's export does: with the base model's config and tensor names."""
    folder.mkdir(parents=True)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    heads = {"num_attention_heads": config["num_attention_heads"], "num_key_value_heads": config["num_key_value_heads"]}
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    layers = {str(index): heads | {"intermediate_size": 1, "skip": []} for index in range(config["num_hidden_layers"])}
    config |= {"head_dim": head_dim, "model_type": f"pruned_{config['model_type']}", "per_layer_config": layers}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save_pretrained(folder)
    return folder
