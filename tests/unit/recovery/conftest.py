"""Fixtures of the recovery tests: tiny pruned models and sequences that they can learn."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.recovery.fine_tuning import TrainingSchedule
from espalier.recovery.lora import LoraSettings
from tests.unit.conftest import random_model, with_biases

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = LoraSettings(rank=4, alpha=8, dropout=0.05, target_modules=SEVEN, seed=0)
SCHEDULE = TrainingSchedule(epochs=4, batch_size=8, learning_rate=1e-2, warmup_fraction=0.1, max_grad_norm=1.0, seed=0)
VOCABULARY = 64
# Layer 0 keeps one of two KV groups and 20 of 48 channels.
KEPT = {"whole": ([[0], [0, 1]], [list(range(20)), list(range(30))]), "emptied": ([[1], []], [list(range(20)), []])}

Pruned = Callable[..., PreTrainedModel]
PLANS = {name: Plan((2, 2), (48, 48), *(tuple(map(tuple, one)) for one in kept)) for name, kept in KEPT.items()}


@pytest.fixture(params=["llama", "qwen2", "mistral", "qwen3"])
def pruned(request: pytest.FixtureRequest) -> Pruned:
    """Return a function that makes a pruned model; with `emptied`, layer 1 has neither attention nor MLP.

    Two calls with the same arguments return equal models.
    """

    def make(kept: str = "whole", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        model = with_biases(random_model(request.param, VOCABULARY, dtype))
        prune(model, *KEPT[kept])
        return model

    torch.manual_seed(0)
    return make


@pytest.fixture
def sequences() -> torch.Tensor:
    """Return sequences, (32, 16), that use an eighth of the vocabulary, so that they are learnt quickly."""
    return torch.randint(0, VOCABULARY // 8, (32, 16), generator=torch.Generator().manual_seed(0))
