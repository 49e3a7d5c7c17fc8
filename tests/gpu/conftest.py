"""Fixtures of the GPU tests: small random models, and the device under test.

`ESPALIER_GPU_TESTS_ON=cpu` runs the tests that need no GPU on the CPU.
"""

import os
from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config

DEVICE = torch.device(os.environ.get("ESPALIER_GPU_TESTS_ON", "cuda"))
CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
VOCABULARY = 1000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder with `gpu`, and skip them if there is no GPU."""
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker("gpu")
            if DEVICE.type == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.fixture(params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a random float32 model on the CPU."""
    return random_model(request.param)


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    """Empty the cache of the GPU after each test."""
    yield
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def random_model(architecture: str, **changes: int) -> PreTrainedModel:
    """Return a seeded random model. Its MLP width, 680, is not a multiple of 16, which is unfavourable for GPUs."""
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 680,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024,
    }  # fmt: skip
    config = CONFIGS[architecture](**{**sizes, **changes}, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def random_tokens(n_rows: int, n_tokens: int) -> torch.Tensor:
    """Draw seeded random tokens: (n_rows, n_tokens)."""
    return torch.randint(3, VOCABULARY, (n_rows, n_tokens), generator=torch.Generator().manual_seed(1))
