"""Compiled layers: equal scores, few versions for many widths, and what happens without a compiler."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from espalier.models.surgery import prune
from espalier.scoring import compiled, engine
from espalier.scoring.compiled import compile_layers
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request, Score
from tests.unit.conftest import random_model

N_LAYERS = 6


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiled, "_functions", {})
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def requests(n: int = 24) -> list[Request]:
    """Return two choices for each of some contexts, which share their first token only."""
    generator = torch.Generator().manual_seed(0)

    def draw(longest: int) -> list[int]:
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        return torch.randint(1, 50, (length,), generator=generator).tolist()

    return [Request([0, *context], draw(6)) for context in (draw(12) for _ in range(n // 2)) for _ in range(2)]


def ragged(architecture: str = "llama") -> PreTrainedModel:
    """Return a model whose layers have different widths and numbers of KV groups; two of them lack a block."""
    model = random_model(architecture, 50, num_hidden_layers=N_LAYERS, num_key_value_heads=4)
    cut(model, (0, 1, 2, 3, 4, 2), narrowest=20)
    return model


def cut(model: PreTrainedModel, n_kv_groups: Sequence[int], narrowest: int) -> None:
    widths = [*range(narrowest, narrowest + 2 * (N_LAYERS - 1), 2), 0]
    prune(model, [list(range(n)) for n in n_kv_groups], [list(range(width)) for width in widths])


def score(model: PreTrainedModel, width: int | None = None) -> list[Score]:
    return score_requests(model, requests(), token_budget=256, width=width)


def check_equal(found: list[Score], expected: list[Score]) -> None:
    assert [answer.is_greedy for answer in found] == [answer.is_greedy for answer in expected]
    assert [answer.loglikelihood for answer in found] == pytest.approx(
        [answer.loglikelihood for answer in expected], abs=1e-4
    )


@pytest.fixture
def counted() -> Iterator[Counter[str]]:
    """Register the backend `counted`, which runs a graph as it is; count the runs."""
    runs: Counter[str] = Counter()

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            runs["graphs"] += 1
            return graph(*inputs)

        return run

    torch._dynamo.register_backend(count, name="counted")
    yield runs
    torch._dynamo.backends.registry._COMPILER_FNS.pop("counted")


# Phi-3 reads its number of heads in the forward pass, and each layer has its own.
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_layers_of_all_sizes_share_few_compiled_versions(architecture: str, counted: Counter[str]) -> None:
    model = ragged(architecture)
    expected = score(model)
    compile_layers(model, backend="counted")
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda *_: counted.update(layers=1))
    check_equal(score(model), expected)
    versions = counters["stats"]["unique_graphs"]
    assert 0 < versions < N_LAYERS
    assert counted["graphs"] == counted["layers"] > N_LAYERS  # no layer ran without the compiler

    check_equal(score(ragged(architecture)), expected)  # a model that is not compiled
    assert counted["graphs"] == counted["layers"]

    other = random_model(architecture, 50, num_hidden_layers=N_LAYERS, num_key_value_heads=4)
    cut(other, (0, 1, 4, 2, 2, 3), narrowest=9)
    expected = score(other)
    compile_layers(other, backend="counted")
    check_equal(score(other), expected)
    assert counted["graphs"] > counted["layers"]
    assert counters["stats"]["unique_graphs"] == versions  # another plan needs no new version


@pytest.mark.long
@pytest.mark.skipif(shutil.which("c++") is None, reason="PyTorch compiles for a CPU with a C++ compiler")
def test_the_compiler_of_pytorch_gives_equal_scores() -> None:
    model = random_model("llama", 50)
    prune(model, [[0, 1], [0, 1]], [list(range(20)), list(range(31))])
    expected = score(model)
    compile_layers(model)
    check_equal(score(model), expected)
    assert counters["stats"]["unique_graphs"] > 0


def test_a_shared_prefix_is_scored_without_the_compiler(counted: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys and values are read by the index of a layer, so each layer would be compiled on its own."""
    prefixes = []
    compute = engine.compute_prefix
    monkeypatch.setattr(engine, "compute_prefix", lambda *args: prefixes.append(args[1].shape) or compute(*args))
    model = random_model("llama", 50, max_position_embeddings=192)
    shared = [Request([*range(1, 49)] * 2 + [token] * 4, [token + 1]) for token in range(1, 25)]
    expected = score_requests(model, shared, token_budget=128)
    compile_layers(model, backend="counted")
    check_equal(score_requests(model, shared, token_budget=128), expected)
    assert prefixes == [(1, 96)] * 2
    assert counted["graphs"] == 0


def failing(error: Exception, *_: object) -> None:
    raise error


def test_without_a_compiler_layers_run_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = ragged()
    expected = score(model)
    torch._dynamo.register_backend(partial(failing, RuntimeError("no C++ compiler\nmore lines")), name="broken")
    try:
        with caplog.at_level(logging.WARNING, logger="espalier"):
            compile_layers(model, backend="broken")
            check_equal(score(model), expected)
    finally:
        torch._dynamo.backends.registry._COMPILER_FNS.pop("broken")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("espalier")]
    assert len(lines) == 1
    assert "no C++ compiler" in lines[0]
    assert [function.is_compiled for function in compiled._functions.values()] == [False]
    assert "\n" not in lines[0]


def test_out_of_memory_is_not_taken_for_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ragged()
    compile_layers(model, backend="eager")
    function = next(iter(compiled._functions.values()))
    monkeypatch.setattr(function, "_compiled", partial(failing, torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        function(model.model.layers[0], torch.zeros(1, 1, 32))
    assert function.is_compiled


def test_layers_that_another_library_runs_are_left_alone() -> None:
    model = random_model("llama", 50)
    own = model.model.layers[0].forward = partial(type(model.model.layers[0]).forward, model.model.layers[0])
    compile_layers(model, backend="eager")
    assert model.model.layers[0].forward is own
    assert isinstance(model.model.layers[1].forward.func, compiled.LayerFunction)
