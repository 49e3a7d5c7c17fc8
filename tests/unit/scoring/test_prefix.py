"""Prefixes that many requests share are computed once, and change no score."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from espalier.models.surgery import prune
from espalier.scoring import engine
from espalier.scoring.engine import score_requests
from espalier.scoring.prefix import find_prefixes
from espalier.scoring.requests import Request
from tests.unit.conftest import random_model
from tests.unit.scoring.reference import plain_score

LENGTH, WIDEST = 90, 128


def requests_of_tasks(n_tasks: int = 2, n_documents: int = 12) -> list[Request]:
    """Return requests of tasks that begin all their prompts with the same 90 tokens, in mixed order.

    A document has 4 choices, each of one or two tokens. The last document of each task is too long for the context.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n_tasks):
        shown = rng.integers(3, 50, LENGTH).tolist()
        for number in range(n_documents):
            own = rng.integers(3, 50, 140 if number == n_documents - 1 else rng.integers(3, 12)).tolist()
            found += [Request([*shown, *own], [choice, 7][: 1 + number % 2]) for choice in range(10, 14)]
    found.append(Request([1, 2, 3], [4]))
    return [found[i] for i in rng.permutation(len(found))]


def pruned() -> PreTrainedModel:
    model = random_model("llama", 50, max_position_embeddings=192)
    prune(model, [[], [1]], [[3, 7, 11, 30], []])
    return model


MODELS: dict[str, Any] = {
    "llama": lambda: random_model("llama", 50, max_position_embeddings=192),
    "window": lambda: random_model("mistral", 50, max_position_embeddings=192, sliding_window=20),
    "mixed windows": lambda: random_model(
        "qwen2", 50, max_position_embeddings=192, use_sliding_window=True, sliding_window=20, max_window_layers=1
    ),
    "eager": lambda: random_model("llama", 50, max_position_embeddings=192, attn_implementation="eager"),
    "without attention in the first layer": pruned,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_scores_equal_those_of_one_request_at_a_time(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests, lengths = make(), requests_of_tasks(), []
    compute = engine.compute_prefix
    monkeypatch.setattr(engine, "compute_prefix", lambda *args: lengths.append(args[1].shape[1]) or compute(*args))
    found = score_requests(model, requests, token_budget=WIDEST)
    # Once for each task. The choices of a document that is too long share a longer prefix of their own.
    assert sorted(lengths) == [LENGTH, LENGTH, 190, 190]
    for request, score in zip(requests, found, strict=True):
        expected, is_greedy = plain_score(model, request)
        assert score.loglikelihood == pytest.approx(expected, abs=2e-4)
        assert score.is_greedy == is_greedy


def test_each_document_adds_only_its_own_tokens() -> None:
    """12 documents of about 100 tokens: their own tokens are a tenth of them."""
    requests = requests_of_tasks(n_tasks=1)
    found = find_prefixes(requests, limit=192, widest=WIDEST)
    (group,) = (one for one in found if len(one.tokens) == LENGTH)
    # The document that is too long has lost its beginning, so it does not share the prefix; the last request is short.
    assert len(group.requests) == len(group.suffixes) == 4 * 11
    assert not set(group.requests) & {index for one in found if one is not group for index in one.requests}
    for index, suffix in zip(group.requests, group.suffixes, strict=True):
        assert [*group.tokens, *suffix.context] == list(requests[index].context)
        assert suffix.continuation == requests[index].continuation


def test_requests_that_fit_in_one_tree_or_share_little_are_left_alone() -> None:
    assert find_prefixes(requests_of_tasks(), limit=192, widest=4096) == []
    short = [Request(list(request.context)[LENGTH - 20 :], request.continuation) for request in requests_of_tasks()[:9]]
    assert find_prefixes([one for one in short if len(one.context)], limit=192, widest=64) == []


def test_without_memory_for_a_prefix_requests_are_scored_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = MODELS["llama"](), requests_of_tasks()
    expected = score_requests(model, requests, token_budget=WIDEST)

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine, "compute_prefix", fails)
    found = score_requests(model, requests, token_budget=WIDEST)
    np.testing.assert_allclose(
        [score.loglikelihood for score in found], [score.loglikelihood for score in expected], atol=2e-4
    )
