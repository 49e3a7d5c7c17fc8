"""Packed scoring equals scoring one request at a time, for all architectures and after out of memory."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GraniteConfig, PreTrainedModel

from espalier.errors import UserError
from espalier.models.surgery import prune
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.unit.conftest import random_model
from tests.unit.scoring.reference import plain_score

CORE = ("espalier.scoring.engine", "espalier.evaluation.perplexity", "espalier.models.surgery")
NOT_CORE = ("pandas", "pyarrow", "lm_eval", "datasets", "pydantic", "pandera", "scipy", "matplotlib")


def pruned(architecture: str) -> PreTrainedModel:
    """Return a model without attention in layer 0 and without MLP in layer 1; the other blocks are pruned in part."""
    model = random_model(architecture, 50, max_position_embeddings=24)
    prune(model, [[], [1]], [[3, 7, 11, 30], []])
    return model


def granite() -> PreTrainedModel:
    """Return a model that scales its logits after the head."""
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=24, logits_scaling=3.0, initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: random_model("llama", 50, max_position_embeddings=24),
    "qwen3": lambda: random_model("qwen3", 50, max_position_embeddings=24),
    "window": lambda: random_model("mistral", 50, max_position_embeddings=24, sliding_window=5),
    "mixed windows": lambda: random_model(
        "qwen2", 50, max_position_embeddings=24, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "eager": lambda: random_model("llama", 50, max_position_embeddings=24, attn_implementation="eager"),
    "eager window": lambda: random_model(
        "mistral", 50, max_position_embeddings=24, sliding_window=5, attn_implementation="eager"
    ),
    "scaled logits": granite,
    "pruned llama": lambda: pruned("llama"),
    "pruned qwen2": lambda: pruned("qwen2"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return MODELS[request.param]()


@pytest.fixture
def llama() -> PreTrainedModel:
    return MODELS["llama"]()


words = st.integers(0, 2)  # few different tokens, so that trees branch at every depth
token_lists = st.lists(words, min_size=1, max_size=30)
continuations = st.lists(words, min_size=1, max_size=24)
trees = st.lists(st.builds(Request, token_lists, continuations), min_size=1, max_size=10)


@given(requests=trees, token_budget=st.integers(8, 200), width=st.sampled_from([None, 8, 32, 64, 512]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_trees_equal_one_request_at_a_time(
    model: PreTrainedModel, requests: list[Request], token_budget: int, width: int | None
) -> None:
    scores = score_requests(model, requests, token_budget=token_budget, width=width)
    for request, score in zip(requests, scores, strict=True):
        expected, greedy = plain_score(model, request)
        assert score.loglikelihood == pytest.approx(expected, abs=1e-4)
        assert score.is_greedy == greedy


def documents(n: int = 12, seed: int = 0) -> list[Request]:
    """Return the requests of documents with four choices each; some exceed the context of the model."""
    generator = torch.Generator().manual_seed(seed)

    def draw(longest: int) -> list[int]:
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        return torch.randint(0, 50, (length,), generator=generator).tolist()

    return [Request(context, draw(20)) for context in (draw(30) for _ in range(n)) for _ in range(4)]


def test_the_models_own_choice_is_greedy(llama: PreTrainedModel) -> None:
    tokens = [3, 4]
    for _ in range(3):
        tokens.append(int(llama(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert score_requests(llama, [Request(tokens[:2], tokens[2:])], token_budget=64)[0].is_greedy
    worst = int(llama(torch.tensor([tokens[:2]])).logits[0, -1].argmin())
    assert not score_requests(llama, [Request(tokens[:2], [worst])], token_budget=64)[0].is_greedy


def test_logits_a_few_positions_at_a_time(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score_requests(llama, documents(), token_budget=512)
    monkeypatch.setattr("espalier.scoring.engine._LOGITS", {"cpu": 150})  # three positions
    pieces = score_requests(llama, documents(), token_budget=512)
    assert [score.is_greedy for score in pieces] == [score.is_greedy for score in whole]
    assert [s.loglikelihood for s in pieces] == pytest.approx([s.loglikelihood for s in whole], abs=1e-5)


def test_nothing_to_score(llama: PreTrainedModel) -> None:
    assert score_requests(llama, [], token_budget=64) == []


def test_the_model_is_left_as_it_was(llama: PreTrainedModel) -> None:
    before = llama(torch.tensor([[1, 2, 3]])).logits
    score_requests(llama, documents(2), token_budget=64)
    with pytest.raises(IndexError):
        score_requests(llama, [Request([1], [99])], token_budget=64)  # no such token
    assert "forward" not in vars(llama.get_decoder())
    assert torch.equal(llama(torch.tensor([[1, 2, 3]])).logits, before)


class LittleMemory:
    """A patch that makes a decoder run out of memory above a number of tokens, and records batch sizes."""

    def __init__(self, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        self.failed: list[int] = []
        decoder = model.get_decoder()
        forward = decoder.forward

        def limited(*, input_ids: torch.Tensor, **extra: Any) -> Any:
            if input_ids.numel() > most:
                self.failed.append(input_ids.numel())
                raise torch.OutOfMemoryError("out of memory")
            self.sizes.append(input_ids.numel())
            return forward(input_ids=input_ids, **extra)

        monkeypatch.setattr(decoder, "forward", limited)


@pytest.fixture
def plenty(llama: PreTrainedModel) -> list[float]:
    """Return the log-likelihoods of the documents, computed with enough memory."""
    return [score.loglikelihood for score in score_requests(llama, documents(), token_budget=1024)]


@pytest.mark.parametrize("most", [300, 100, 24])
def test_out_of_memory_halves_the_budget_and_loses_nothing(
    llama: PreTrainedModel, plenty: list[float], most: int, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    memory = LittleMemory(llama, monkeypatch, most)
    with caplog.at_level(logging.WARNING):
        scores = score_requests(llama, documents(), token_budget=1024)
    assert [score.loglikelihood for score in scores] == pytest.approx(plenty, abs=1e-4)
    assert memory.failed
    assert max(memory.sizes) <= most
    assert len(caplog.messages) == len(memory.failed)
    assert "out of memory with a batch of" in caplog.messages[0]
    assert caplog.messages[0].endswith(f"at most {memory.failed[0] // 2} (evaluation.token_budget)")


def test_what_was_scored_before_is_not_scored_again(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out once, at the third batch; the two batches before it are not repeated."""
    calls: Iterator[bool] = iter([False, False, True] + [False] * 99)
    decoder = llama.get_decoder()
    forward, n_tokens = decoder.forward, []

    def sometimes(**arguments: Any) -> Any:
        if next(calls):
            raise torch.OutOfMemoryError("out of memory")
        n_tokens.append(arguments["input_ids"].numel())
        return forward(**arguments)

    expected = [score.loglikelihood for score in score_requests(llama, documents(), token_budget=128)]
    monkeypatch.setattr(decoder, "forward", sometimes)
    scores = score_requests(llama, documents(), token_budget=128)
    assert [score.loglikelihood for score in scores] == pytest.approx(expected, abs=1e-4)
    assert n_tokens[1] > 64 >= max(n_tokens[2:])


def test_too_little_memory_for_one_sequence_is_an_error_of_one_line(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    LittleMemory(llama, monkeypatch, most=10)
    with pytest.raises(
        UserError, match=r"^tasks: cpu is out of memory with a single sequence of 24 tokens; take a device with more"
    ):
        score_requests(llama, documents(), token_budget=1024, what="tasks")


def test_the_core_needs_numpy_torch_and_transformers_only() -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({NOT_CORE}))\nimport {', '.join(CORE)}"
    done = subprocess.run([sys.executable, "-c", code], cwd="src", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threshold", [64, 60])
def test_positions_that_scale_with_the_length_are_scored_as_alone(threshold: int) -> None:
    """The transformers library scales the positions of a batch by its longest sequence, padding included."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1] * 4, "long_factor": [1, 2, 4, 8],
            "original_max_position_embeddings": threshold, "factor": 4}  # fmt: skip
    model = random_model("llama", 50, rope_parameters=rope, max_position_embeddings=250)
    draw = torch.Generator().manual_seed(3)
    shared = torch.randint(50, (300,), generator=draw).tolist()
    requests = [Request(shared[:n], [1, 2]) for n in (20, 30, 25, 40, 100, 110, 58, 59, 60, 63, 64, 65, 247, 248)]
    requests += [Request([7, *shared[:n]], [3]) for n in (59, 60, 61, 100)]
    for token_budget in (64, 4096):
        for request, score in zip(requests, score_requests(model, requests, token_budget=token_budget), strict=True):
            assert score.loglikelihood == pytest.approx(plain_score(model, request)[0], abs=1e-4)


def test_padding_never_extends_positions_that_scale() -> None:
    """`dynamic` scaling begins beyond the context of 100 tokens; padding a row to 104 tokens must not start it."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = random_model("llama", 50, rope_parameters=rope, max_position_embeddings=100)
    draw = torch.Generator().manual_seed(3)
    requests = [Request(torch.randint(50, (n,), generator=draw).tolist(), [4]) for n in (100, 99, 40, 98)]
    for request, score in zip(requests, score_requests(model, requests, token_budget=4096), strict=True):
        assert score.loglikelihood == pytest.approx(plain_score(model, request)[0], abs=1e-4)
