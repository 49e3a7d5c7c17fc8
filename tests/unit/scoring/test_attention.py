"""Attention masks of packed rows: which tokens attend to which, with and without a sliding window."""

import pytest
import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.scoring.attention import Attention, attends
from tests.unit.conftest import random_model

# A row with a tree (0 1 | 2 3 | 4), a chain (5 6) and one token of padding.
DEPTH = torch.tensor([[0, 1, 2, 3, 2, 0, 1, 0]])
END = torch.tensor([[5, 5, 4, 4, 5, 7, 7, 8]])
SEEN = ["1.......", "11......", "111.....", "1111....", "11..1...", ".....1..", ".....11.", ".......1"]
SEEN_IN_A_WINDOW_OF_2 = ["1.......", "11......", ".11.....", "..11....", ".1..1...", ".....1..", ".....11.", ".......1"]


def drawn(mask: torch.Tensor) -> list[str]:
    return ["".join("1" if seen else "." for seen in row) for row in mask.tolist()]


def test_masks_by_hand() -> None:
    assert drawn(attends(DEPTH, END)[0]) == SEEN
    assert drawn(attends(DEPTH, END, window=2)[0]) == SEEN_IN_A_WINDOW_OF_2


def sliding_qwen(implementation: str = "sdpa") -> PreTrainedModel:
    """Return a model whose first layer has full attention and whose second layer has a window of 4."""
    return random_model(
        "qwen2", 50, use_sliding_window=True, sliding_window=4, max_window_layers=1, attn_implementation=implementation
    )


def test_kinds_of_layers_are_read_from_the_config() -> None:
    def windows(model: PreTrainedModel) -> dict[str, int | None]:
        return dict(Attention.from_model(model).windows)

    assert windows(random_model("llama", 50)) == {"full_attention": None}
    assert windows(random_model("llama", 50, sliding_window=4)) == {"full_attention": None}  # Llama ignores it
    assert windows(random_model("qwen2", 50)) == {"full_attention": None}
    assert windows(random_model("mistral", 50, sliding_window=None)) == {"full_attention": None}
    assert windows(random_model("mistral", 50, sliding_window=4)) == {"sliding_attention": 4}
    assert windows(sliding_qwen()) == {"full_attention": None, "sliding_attention": 4}


def test_layers_that_differ_get_a_mask_each() -> None:
    masks = Attention.from_model(sliding_qwen()).mask(DEPTH, END)
    assert isinstance(masks, dict)
    assert drawn(masks["full_attention"][0, 0] == 0) == SEEN
    assert drawn(masks["sliding_attention"][0, 0] == 0) == (drawn(attends(DEPTH, END, window=4)[0]))


def test_masks_have_the_models_dtype() -> None:
    mask = Attention.from_model(random_model("llama", 50, torch.bfloat16)).mask(DEPTH, END)
    assert isinstance(mask, torch.Tensor)
    assert mask.dtype == torch.bfloat16
    assert mask.shape == (1, 1, 8, 8)
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.bfloat16).min}


def test_attention_without_masks_is_refused() -> None:
    model = random_model("llama", 50)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match=r"'flash_attention_2' takes no mask of packed requests; use 'sdpa' or 'eager'"):
        Attention.from_model(model)


def test_unknown_kinds_of_layers_are_refused() -> None:
    model = random_model("llama", 50)
    model.config.layer_types = ["chunked_attention", "full_attention"]
    with pytest.raises(UserError, match="the model has layers of chunked_attention; only full and sliding"):
        Attention.from_model(model)
