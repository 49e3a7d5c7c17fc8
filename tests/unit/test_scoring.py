"""Log-likelihoods and perplexity against plain loops, and lm-eval's rules for contexts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.evaluation.perplexity import make_windows, measure_perplexity
from espalier.scoring import Request, batches_by_length, score_requests
from tests.unit.conftest import random_model


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return random_model("llama", 50, max_position_embeddings=16)


def plain_score(model: PreTrainedModel, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Score one request alone, token by token, after cutting at the left as lm-eval does."""
    tokens = (context + continuation)[-17:]  # context of 16 tokens + the last one, which is only predicted
    log_probs = model(torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    scored = range(len(tokens) - len(continuation), len(tokens))
    total = sum(log_probs[i - 1, tokens[i]].item() for i in scored)
    return total, all(log_probs[i - 1].argmax().item() == tokens[i] for i in scored)


@pytest.mark.parametrize("token_budget", [64, 100, 10_000])
def test_scores_equal_a_plain_loop_at_any_budget(model: PreTrainedModel, token_budget: int) -> None:
    generator = torch.Generator().manual_seed(0)
    requests = []
    for n_context, n_continuation in [(1, 1), (5, 1), (3, 7), (12, 4), (14, 6), (40, 3), (1, 16), (2, 2)] * 3:
        tokens = torch.randint(0, 50, (n_context + n_continuation,), generator=generator).tolist()
        requests.append(Request(tokens[:n_context], tokens[n_context:]))
    scores = score_requests(model, requests, token_budget=token_budget)
    for request, score in zip(requests, scores, strict=True):
        expected, greedy = plain_score(model, list(request.context), list(request.continuation))
        assert score.loglikelihood == pytest.approx(expected, abs=1e-4)
        assert score.is_greedy == greedy


def test_the_models_own_choice_is_greedy(model: PreTrainedModel) -> None:
    tokens = [3, 4]
    for _ in range(3):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert score_requests(model, [Request(tokens[:2], tokens[2:])], token_budget=64)[0].is_greedy
    worst = int(model(torch.tensor([tokens[:2]])).logits[0, -1].argmin())
    assert not score_requests(model, [Request(tokens[:2], [worst])], token_budget=64)[0].is_greedy


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)


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


def test_perplexity_equals_a_plain_loop(model: PreTrainedModel) -> None:
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
    result = measure_perplexity(model, tokens, name="x", window=16, stride=6, token_budget=64)
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
