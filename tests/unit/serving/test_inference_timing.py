"""Versions of a model for the timing: shared tensors and padding; order, sizes and errors of the timed runs."""

import pytest
import torch

from espalier.errors import UserError
from espalier.models.decoder import decoder_layers, n_mlp_channels
from espalier.models.surgery import prune
from espalier.serving import inference_timing
from espalier.serving.inference_summary import PADDED, PRUNED, UNPRUNED, Workload
from espalier.serving.inference_timing import (
    kv_cache_bytes_per_token,
    measure,
    pad_widths,
    versions_of,
    weights_bytes,
)
from tests.unit.conftest import random_model, with_biases

KV = ((0,), (0, 1))
MLP = (tuple(range(20)), tuple(range(48)))
TOKENS = torch.arange(12).reshape(2, 6)
WORKLOAD = Workload(batch_sizes=(1, 2), prompt_tokens=8, new_tokens=4, repeats=6)


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "qwen3"])
def test_versions_compute_what_they_should(name: str) -> None:
    """The unpruned version is unchanged, and the padded version has the logits of the pruned version."""
    changes = {"attention_bias": True, "mlp_bias": True} if name == "llama" else {}
    model = with_biases(random_model(name, 40, **changes))
    before = model(TOKENS).logits
    versions = versions_of(model, KV, MLP, multiple=32)
    alone = with_biases(random_model(name, 40, **changes))
    alone.load_state_dict(model.state_dict())
    prune(alone, KV, MLP)
    assert torch.equal(versions[UNPRUNED](TOKENS).logits, before)
    assert torch.equal(versions[PRUNED](TOKENS).logits, alone(TOKENS).logits)
    assert [n_mlp_channels(layer) for layer in decoder_layers(versions[PRUNED])] == [20, 48]
    assert [n_mlp_channels(layer) for layer in decoder_layers(versions[PADDED])] == [32, 64]
    torch.testing.assert_close(versions[PADDED](TOKENS).logits, alone(TOKENS).logits, rtol=1e-5, atol=1e-5)


def test_a_version_without_a_layer_leaves_the_unpruned_one() -> None:
    model = random_model("qwen2", 40)
    before = model(TOKENS).logits
    versions = versions_of(model, ((), (0, 1)), ((), tuple(range(48))), (0,), multiple=16)
    assert list(versions) == [UNPRUNED, PRUNED]
    assert [len(one.model.layers) for one in versions.values()] == [2, 1]
    assert torch.equal(versions[UNPRUNED](TOKENS).logits, before)
    assert {run.version for run in measure(versions, WORKLOAD)} == {UNPRUNED, PRUNED}
    # One layer, 2 key/value heads of 8, keys and values, float32.
    assert kv_cache_bytes_per_token(versions[PRUNED]) == 2 * 8 * 2 * 4


def test_versions_share_what_is_not_cut() -> None:
    versions = versions_of(random_model("llama", 40), KV, MLP, multiple=32)
    embeddings = [model.get_input_embeddings().weight for model in versions.values()]
    assert all(one is embeddings[0] for one in embeddings)
    kept_whole = [decoder_layers(versions[name])[1].mlp.up_proj.weight for name in (UNPRUNED, PRUNED)]
    assert kept_whole[0] is kept_whole[1]


def test_no_padded_version_of_widths_that_are_multiples() -> None:
    assert list(versions_of(random_model("llama", 40), KV, (tuple(range(16)), ()), multiple=16)) == [UNPRUNED, PRUNED]


def test_a_layer_without_mlp_is_not_padded() -> None:
    model = random_model("llama", 40)
    prune(model, KV, ((), tuple(range(20))))
    expected = model(TOKENS).logits
    assert pad_widths(model, 32) == 1
    torch.testing.assert_close(model(TOKENS).logits, expected, rtol=1e-5, atol=1e-5)


def test_sizes() -> None:
    model = random_model("llama", 40, tie_word_embeddings=True)
    assert weights_bytes(model) == 4 * model.num_parameters()
    # 2 layers, 2 key/value heads of 8, keys and values, float32.
    assert kv_cache_bytes_per_token(model) == 2 * 2 * 8 * 2 * 4
    prune(model, ((), (1,)), ((0,), (0,)))
    assert kv_cache_bytes_per_token(model) == 8 * 2 * 4


def test_every_version_runs_once_a_repeat_and_the_order_changes() -> None:
    """In each repeat every version runs once; the order differs between repeats."""
    runs = measure(versions_of(random_model("llama", 40), KV, MLP, multiple=32), WORKLOAD)
    turns = [runs[start : start + 3] for start in range(0, len(runs), 3)]
    assert [{(run.batch_size, run.repeat) for run in turn} for turn in turns] == [
        {(batch_size, repeat)} for batch_size in (1, 2) for repeat in range(6)
    ]
    assert all({run.version for run in turn} == {UNPRUNED, PRUNED, PADDED} for turn in turns)
    assert len({tuple(run.version for run in turn) for turn in turns}) > 1
    assert all(run.prefill_s > 0 and run.decode_s > 0 and run.beyond_weights_bytes is None for run in runs)


def test_the_cache_holds_what_the_shapes_say() -> None:
    """The cache holds the 8 tokens of the prompt and 3 of the 4 new tokens."""
    versions = versions_of(random_model("llama", 40), KV, MLP, multiple=32)
    for run in measure(versions, WORKLOAD):
        assert run.cache_bytes == kv_cache_bytes_per_token(versions[run.version]) * 11 * run.batch_size


def test_what_exceeds_the_context() -> None:
    """More prompt and new tokens than the model's context raise an error."""
    workload = Workload((1,), prompt_tokens=120, new_tokens=9, repeats=6)
    with pytest.raises(
        UserError,
        match=r"inference: prompt_tokens 120 and new_tokens 9 are more than the model's context of 128 tokens; give",
    ):
        measure({UNPRUNED: random_model("llama", 40)}, workload)


def test_a_cache_that_cannot_fit_is_refused_before_anything_runs() -> None:
    model = random_model("llama", 40)
    workload = Workload((1, 10**10), prompt_tokens=8, new_tokens=4, repeats=6)
    model.forward = None
    with pytest.raises(
        UserError,
        match=r"inference.batch_sizes: got 10000000000, which needs 26\d\d.* GiB of cache alone, .* are free; ",
    ):
        measure({UNPRUNED: model}, workload)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_that_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(inference_timing, "_timed_generation", fail)
    with pytest.raises(UserError, match=r"inference.batch_sizes: got 1, which ran out of memory; give smaller batches"):
        measure({UNPRUNED: random_model("llama", 40)}, WORKLOAD)


def test_other_errors_are_not_called_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A RuntimeError that is not about memory is raised unchanged."""

    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(inference_timing, "_timed_generation", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        measure({UNPRUNED: random_model("llama", 40)}, WORKLOAD)
