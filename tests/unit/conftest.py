"""Fixtures of the unit tests: tiny random models and a small sandbox world."""

import copy
import importlib.util
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from hypothesis import Phase, settings
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from espalier.models.architecture import FAMILIES
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.sandbox.corpora import make_pages
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import World, make_world
from tests.conftest import REPOSITORY

torch.set_num_threads(1)  # for models this small, synchronising threads costs more than it saves

# A slow machine is no failure: Hypothesis would give each example 200 ms, except on CI.
settings.register_profile("default", settings.get_profile("default"), deadline=None)
# Profile of `make mutation`: counterexamples are not shrunk.
settings.register_profile("mutation", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])

# Config class of each family in the table that the installed transformers has.
CONFIGS = {
    name: getattr(transformers, family.config)
    for name, family in FAMILIES.items()
    if hasattr(transformers, family.config)
}
# A small head, no special tokens outside a small vocabulary, and a window that short texts exceed. The four families
# that most tests use keep the defaults of their configs.
SMALL = {"head_dim": 8, "pad_token_id": None, "eos_token_id": None, "sliding_window": 5}
_BOTH_TYPES = {"layer_types": ["sliding_attention", "full_attention"]}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# What the configs of some families need besides.
_NEEDED = {
    "cohere2": _BOTH_TYPES,
    "cwm": {"rope_parameters": _ROPE, "eos_token_id": 2},
    "exaone4": _BOTH_TYPES,
    "gemma3_text": _BOTH_TYPES,
    "glm": {"head_dim": 16},
    "glm4": {"head_dim": 16},
    "hunyuan_v1_dense": {"rope_parameters": _ROPE},
    "ministral": {"rope_parameters": _ROPE, **_BOTH_TYPES},
    "ministral3": {"rope_parameters": {**_ROPE, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 8}},
    "phi3": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 64,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
        },
    },
    "smollm3": {"no_rope_layers": [1, 0]},
}


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a workflow script; the environment variables that it sets are restored."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        if not os.environ[name]:
            monkeypatch.delenv(name)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"workflow/scripts/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="session")
def pages(world: World) -> list[str]:
    return make_pages(world, "training", 300, 0)


@pytest.fixture(scope="session", params=["llama", "qwen2", "mistral"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def tokenizer(architecture: str, pages: list[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer of the type that the architecture uses."""
    return wrap(train_tokenizer(architecture, pages, 600), model_max_length=128, chat=True)


def random_model(
    architecture: str, vocab_size: int, dtype: torch.dtype = torch.float32, **changes: object
) -> PreTrainedModel:
    """Return a seeded random model; by default it has two layers, four query heads and two KV heads."""
    shape: dict[str, object] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    config_class = CONFIGS[architecture]
    if architecture not in {"llama", "mistral", "qwen2", "qwen3"}:
        known = inspect.signature(config_class).parameters
        shape |= {key: value for key, value in SMALL.items() if key in known} | _NEEDED.get(architecture, {})
    config = config_class(vocab_size=vocab_size, **copy.deepcopy(shape | changes))
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def save_random_model(folder: Path) -> None:
    """Save a random Llama with a context of 2048 tokens, the published window, and a placeholder tokenizer."""
    random_model("llama", 50, max_position_embeddings=2048).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")


def with_biases(model: PreTrainedModel) -> PreTrainedModel:
    """Draw random biases for a model. Newly created biases are zero, so errors in them would not show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def model_folder(tmp_path: Path, architecture: str, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Save a random model with its tokenizer; return the folder."""
    folder = tmp_path / "model"
    random_model(architecture, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def plain_tokenizer(pages: list[str]) -> Tokenizer:
    return train_tokenizer("llama", pages, 600)


@pytest.fixture(scope="session")
def llama_3_8b() -> ModelSizes:
    """Return the sizes of Llama-3-8B.

    Hidden size 4096, 32 query heads of size 128, 8 KV heads, MLP width 14336, vocabulary 128256, untied head.
    """
    hidden, head_dim, group = 4096, 128, 4
    layer = LayerSizes(
        n_kv_groups=8,
        kv_group_params=hidden * head_dim * (2 * group + 2),  # q_proj and o_proj: 4 heads each; k_proj, v_proj: one
        n_mlp_channels=14336,
        mlp_channel_params=3 * hidden,
        fixed_params=2 * hidden,
    )
    return ModelSizes((layer,) * 32, other_params=2 * 128256 * hidden + hidden)
