"""Perplexity against a plain loop, and its windows by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.evaluation.perplexity import make_windows, measure_perplexity
from tests.unit.conftest import random_model


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return random_model("llama", 50, max_position_embeddings=16)


@given(st.integers(2, 300), st.integers(2, 40), st.data())
def test_windows_score_each_token_but_the_first_once(n_tokens: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    windows = make_windows(n_tokens, window, stride)
    assert [i for _, first, end in windows for i in range(first, end)] == list(range(1, n_tokens))
    assert all(end - begin <= window and first > begin for begin, first, end in windows)
    assert all(first - begin >= window - stride for begin, first, _ in windows[1:])


def test_windows_by_hand() -> None:
    # window 4, stride 2 over 7 tokens: 0-3 scores 1, 2, 3; 2-5 scores 4, 5; 4-6 scores 6
    assert make_windows(7, 4, 2) == [(0, 1, 4), (2, 4, 6), (4, 6, 7)]


@pytest.mark.parametrize("sliding_window", [None, 5])
@pytest.mark.parametrize("token_budget", [16, 64, 4096])
def test_perplexity_equals_a_plain_loop(token_budget: int, sliding_window: int | None) -> None:
    model = random_model("mistral", 50, max_position_embeddings=16, sliding_window=sliding_window)
    tokens = torch.randint(0, 50, (101,), generator=torch.Generator().manual_seed(1)).tolist()
    nll, n_tokens, previous_end = 0.0, 0, 1
    for begin in range(0, 101, 6):  # the recipe of the transformers documentation, with labels masked by hand
        end = min(begin + 16, 101)
        log_probs = model(torch.tensor([tokens[begin:end]])).logits[0].log_softmax(-1)
        for i in range(previous_end, end):
            nll -= log_probs[i - begin - 1, tokens[i]].item()
            n_tokens += 1
        previous_end = end
        if end == 101:
            break
    result = measure_perplexity(model, tokens, name="x", window=16, stride=6, token_budget=token_budget)
    assert result.n_tokens == n_tokens == 100
    assert result.value == pytest.approx(math.exp(nll / n_tokens), rel=1e-5)


def test_perplexity_of_a_uniform_model_is_the_vocabulary(model: PreTrainedModel) -> None:
    uniform = random_model("llama", 50, max_position_embeddings=16)
    torch.nn.init.zeros_(uniform.lm_head.weight)
    assert measure_perplexity(uniform, [1, 2, 3, 4, 5], name="x", window=4, stride=2, token_budget=64).value == (
        pytest.approx(50, rel=1e-6)
    )


def test_window_longer_than_the_context_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"evaluation.perplexity.window: got 32, but the model's context is 16 tokens"):
        measure_perplexity(model, [1] * 40, name="x", window=32, stride=8, token_budget=64)


def test_a_text_of_one_token_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"text 'x' has 1 tokens; it needs at least 2"):
        measure_perplexity(model, [1], name="x", window=8, stride=4, token_budget=64)


def test_overflow_is_refused() -> None:
    broken = random_model("llama", 50, max_position_embeddings=16)
    with torch.no_grad():
        broken.lm_head.weight.mul_(float("inf"))
    with pytest.raises(UserError, match=r"perplexity of 'x': the model's log-likelihood is nan"):
        measure_perplexity(broken, [1, 2, 3], name="x", window=8, stride=4, token_budget=64)
