"""Perplexity against a plain loop, and windows against hand-worked cases."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.evaluation.perplexity import make_windows, measure_perplexity
from espalier.evaluation.protocol import Bos
from espalier.scoring.requests import Request
from tests.unit.conftest import random_model
from tests.unit.scoring.reference import plain_score


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
    with pytest.raises(UserError, match=r"text 'x' has 1 tokens, none of which has a context to be scored in"):
        measure_perplexity(model, [1], name="x", window=8, stride=4, token_budget=64)
    with pytest.raises(UserError, match=r"text 'x' has 1 tokens"):
        measure_perplexity(model, [1, 2, 3], name="x", window=8, stride=4, token_budget=64, max_tokens=1)


@pytest.mark.parametrize("stride", [4, 7, 8])
@pytest.mark.parametrize("bos", ["first", "every"])
@pytest.mark.parametrize("tokens", [[5], [0, 5]])
def test_a_text_of_one_token_is_scored_after_bos(
    tokens: list[int], bos: Bos, stride: int, model: PreTrainedModel
) -> None:
    """BOS is the context of its token, whether or not the tokenizer added BOS."""
    result = measure_perplexity(model, tokens, name="x", window=8, stride=stride, token_budget=64, bos=bos, bos_token=0)
    assert result.n_tokens == 1
    assert result.value == pytest.approx(math.exp(-plain_score(model, Request([0], [5]))[0]), rel=1e-5)


@pytest.mark.parametrize("bos", ["first", "every", "none"])
def test_a_text_of_bos_alone_is_refused(bos: Bos, model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"text 'x' has 1 tokens, none of which has a context to be scored in"):
        measure_perplexity(model, [0], name="x", window=8, stride=4, token_budget=64, bos=bos, bos_token=0)


def test_overflow_is_refused() -> None:
    broken = random_model("llama", 50, max_position_embeddings=16)
    with torch.no_grad():
        broken.lm_head.weight.mul_(float("inf"))
    with pytest.raises(UserError, match=r"perplexity of 'x': the model's log-likelihood is nan"):
        measure_perplexity(broken, [1, 2, 3], name="x", window=8, stride=4, token_budget=64)


def wanda_perplexity(model: PreTrainedModel, tokens: list[int], window: int) -> float:
    """Compute perplexity as Wanda, GPTQ and SparseGPT do: from the mean loss over whole, disjoint windows."""
    n_windows = len(tokens) // window
    losses = []
    for i in range(n_windows):
        batch = torch.tensor([tokens[i * window : (i + 1) * window]])
        with torch.no_grad():
            logits = model(batch).logits
        shifted = logits[:, :-1].reshape(-1, logits.shape[-1])
        losses.append(torch.nn.functional.cross_entropy(shifted, batch[:, 1:].reshape(-1)) * window)
    return float(torch.exp(torch.stack(losses).sum() / (n_windows * window)))


def drawn(n_tokens: int) -> list[int]:
    return torch.randint(1, 50, (n_tokens,), generator=torch.Generator().manual_seed(1)).tolist()


def test_disjoint_windows_by_hand() -> None:
    # window 4 over 10 tokens: 0-3 scores 1, 2, 3; 4-7 scores 5, 6, 7; 8 and 9 are left out
    assert make_windows(10, 4, 4) == [(0, 1, 4), (4, 5, 8)]
    assert make_windows(3, 4, 4) == [(0, 1, 3)]  # a text shorter than a window


def test_disjoint_windows_give_wandas_number(model: PreTrainedModel) -> None:
    tokens = drawn(101)
    result = measure_perplexity(model, tokens, name="x", window=16, stride=16, token_budget=64)
    assert result.value == pytest.approx(wanda_perplexity(model, tokens, 16), rel=1e-5)
    assert result.n_tokens == 6 * 15


@pytest.mark.parametrize("stride", [6, 15, 16])
@pytest.mark.parametrize("bos", ["first", "every", "none"])
@pytest.mark.parametrize("begins_with_bos", [True, False])
def test_bos_of_windows(bos: Bos, stride: int, begins_with_bos: bool, model: PreTrainedModel) -> None:
    """The expected value follows the definition: each window is built with its BOS and scored alone."""
    text = drawn(70)
    tokens = [0, *text] if begins_with_bos else text
    result = measure_perplexity(
        model, tokens, name="x", window=16, stride=stride, token_budget=64, bos=bos, bos_token=0
    )
    if bos == "every":
        pieces, begin, scored = [], 0, 0
        while scored < len(text):
            end = begin + 15  # BOS takes one position
            if stride >= 15 and end > len(text):
                break  # an incomplete last window is left out
            pieces.append(([0, *text[begin:scored]], text[scored:end]))
            scored, begin = min(end, len(text)), begin + min(stride, 15)
    else:
        whole = [0, *text] if bos == "first" else text
        pieces = [(whole[a:b], whole[b:c]) for a, b, c in make_windows(len(whole), 16, stride)]
    total = sum(plain_score(model, Request(context, scored))[0] for context, scored in pieces)
    n_tokens = sum(len(scored) for _, scored in pieces)
    assert result.n_tokens == n_tokens
    assert result.value == pytest.approx(math.exp(-total / n_tokens), rel=1e-5)
    assert max(len(context) + len(scored) for context, scored in pieces) <= 16
    if bos == "every":
        assert n_tokens == (70 if stride == 6 else 60)  # disjoint windows leave out the last 10 tokens


def test_the_first_tokens_of_a_text_are_those_of_a_shorter_text(model: PreTrainedModel) -> None:
    tokens = drawn(90)
    settings = {"name": "x", "window": 16, "stride": 8, "token_budget": 64}
    cut = measure_perplexity(model, tokens, max_tokens=40, **settings)
    short = measure_perplexity(model, tokens[:40], **settings)
    assert (cut.value, cut.n_tokens) == (short.value, 39)


def test_losses_of_windows_sum_to_the_perplexity(model: PreTrainedModel) -> None:
    result = measure_perplexity(model, drawn(90), name="x", window=16, stride=8, token_budget=64)
    assert len(result.window_losses) == len(result.window_tokens) == len(make_windows(90, 16, 8))
    assert result.window_tokens.sum() == result.n_tokens == 89
    assert math.exp(result.window_losses.sum() / 89) == pytest.approx(result.value, rel=1e-12)


def test_bos_that_a_tokenizer_does_not_have_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"evaluation.perplexity.bos: got 'every', but the tokenizer has no BOS token"):
        measure_perplexity(model, [1, 2, 3], name="x", window=8, stride=4, token_budget=64, bos="every")
