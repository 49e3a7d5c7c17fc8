"""Comparison of logits: llama.cpp and `reference_logits` against the pruned PyTorch model."""

import re
from pathlib import Path

import gguf
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.export.build import stock_model
from espalier.export.gguf import tensors
from espalier.export.gguf.reference import reference_logits
from espalier.export.gguf.source import open_source
from espalier.export.gguf.write import export_gguf
from espalier.files import read_json
from espalier.models.surgery import prune
from espalier.planning.stock import KeptLayer, stock_shape
from tests.unit.export.gguf.conftest import KV_GROUPS, MLP_CHANNELS, cut, four_layers, save_pruned

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


def without(groups: list[list[int]], *layers: int) -> list[list[int]]:
    """Return the kept groups with those of `layers` removed."""
    return [[] if index in layers else kept for index, kept in enumerate(groups)]


CASES = {
    "llama": ("llama", {}, (), ()),
    "qwen2": ("qwen2", {}, (), ()),
    "mistral": ("mistral", {"sliding_window": None}, (), ()),
    "llama, tied": ("llama", {"tie_word_embeddings": True}, (), ()),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}, (), ()),
    "llama, head size 16": ("llama", {"head_dim": 16}, (), ()),
    "mistral, head size 64": ("mistral", {"head_dim": 64, "sliding_window": None}, (), ()),
    "llama, head size 128": ("llama", {"head_dim": 128}, (), ()),
    "llama, biases everywhere": ("llama", {"attention_bias": True, "mlp_bias": True}, (), ()),
    "llama, biases that stay": ("llama", {"attention_bias": True, "mlp_bias": True}, (0, 2), (0, 3)),
    "llama, llama3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE}, (), ()),
    "llama, llama3 rope, no first attention": ("llama", {"rope_parameters": LLAMA3_ROPE}, (0,), ()),
    "llama, linear rope": ("llama", {"rope_parameters": LINEAR_ROPE}, (), ()),
    "no attention in the first layer": ("llama", {}, (0,), ()),
    "no attention in a middle layer": ("qwen2", {}, (1,), ()),
    "no attention in the last layer": ("mistral", {"sliding_window": None}, (3,), ()),
    "no attention at all": ("llama", {}, (0, 1, 2, 3), ()),
    "no MLP in the first layer": ("llama", {}, (), (0,)),
    "no MLP in a middle layer": ("llama", {}, (), (2,)),
    "no MLP in the last layer": ("qwen2", {}, (), (3,)),
    "first layer gone": ("llama", {}, (0,), (0,)),
    "first layer gone, then no attention": ("llama", {}, (0, 1), (0,)),
    "middle layer gone": ("qwen2", {}, (1,), (1,)),
    "last layer gone": ("llama", {}, (3,), (3,)),
    "all layers gone": ("llama", {}, (0, 1, 2, 3), (0, 1, 2, 3)),
}


@pytest.fixture(params=list(CASES))
def case(
    request: pytest.FixtureRequest, tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]
) -> tuple[Path, torch.nn.Module]:
    """Return the folder of a pruned model, and the model."""
    architecture, changes, no_attention, no_mlp = CASES[request.param]
    tokenizer = tokenizers[architecture]
    model = four_layers(architecture, len(tokenizer), **changes)
    cut(model, without(KV_GROUPS, *no_attention), without(MLP_CHANNELS, *no_mlp))
    return save_pruned(model, tokenizer, tmp_path / "pruned"), model


def test_the_reference_is_the_pruned_model(case: tuple[Path, torch.nn.Module]) -> None:
    folder, model = case
    ids = torch.arange(5, 105)
    with torch.inference_mode():
        expected = model(ids[None], use_cache=False).logits[0]
    torch.testing.assert_close(reference_logits(open_source(folder), ids.tolist()), expected, rtol=1e-4, atol=1e-4)


STOCK_CASES = {
    "llama": ("llama", {"attention_bias": True, "mlp_bias": True}, "llama"),
    "llama, llama3 rope, tied": ("llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}, "llama"),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16}, "llama"),
    "qwen2": ("qwen2", {}, "qwen2"),
    "qwen3": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}, "qwen3"),
}
ALL_CHANNELS = list(range(48))
STOCK_PLANS = {
    "layers": ([[], [0, 1], [0, 1], []], [[], ALL_CHANNELS, ALL_CHANNELS, []], [0, 3]),
    "one shape": (
        [[0], [1], [1], [0]],
        [ALL_CHANNELS[::2], ALL_CHANNELS[1::2], ALL_CHANNELS[:24], ALL_CHANNELS[24:]],
        [],
    ),
}


@pytest.fixture(params=[(case, plan) for case in STOCK_CASES for plan in STOCK_PLANS], ids=", ".join)
def stock_case(
    request: pytest.FixtureRequest, tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]
) -> tuple[Path, torch.nn.Module, str]:
    """Return the folder of a stock checkpoint, the model, and the name of its GGUF architecture."""
    architecture, changes, name = STOCK_CASES[request.param[0]]
    if request.param == ("qwen2", "one shape"):
        name = "deci"  # llama.cpp loads no `qwen2` that lost heads
    tokenizer = tokenizers["qwen2" if architecture == "qwen3" else architecture]
    model = four_layers(architecture, len(tokenizer), **changes)
    plan = STOCK_PLANS[request.param[1]]
    prune(model, *plan)
    kept = KeptLayer(len(plan[0][1]), len(plan[1][1]), is_removed=False)
    shape = stock_shape([kept] * model.config.num_hidden_layers)
    assert shape is not None
    stock_model(model, shape).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock", model, name


def test_the_reference_is_the_stock_model(stock_case: tuple[Path, torch.nn.Module, str]) -> None:
    folder, model, _ = stock_case
    ids = torch.arange(5, 105)
    with torch.inference_mode():
        expected = model(ids[None], use_cache=False).logits[0]
    torch.testing.assert_close(reference_logits(open_source(folder), ids.tolist()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.llama
def test_llama_cpp_computes_the_stock_model(stock_case: tuple[Path, torch.nn.Module, str], tmp_path: Path) -> None:
    """The file has the stock architecture, with one number for all layers, if llama.cpp loads it, and no stubs."""
    folder, model, name = stock_case
    facts = export_gguf(folder, tmp_path / "model.gguf", gguf_type="F32", name="stock")
    assert facts["architecture"] == name
    assert facts["n_blocks"] == model.config.num_hidden_layers
    assert facts["left_out_layers"] == facts["attention_stubs"] == facts["mlp_stubs"] == []
    checked = facts["llama_cpp"]
    assert (checked["checked"], checked["n_tokens"], checked["same_argmax"]) == (True, 200, 1.0)
    assert checked["max_logit_difference"] < 1e-3
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.architecture"].contents() == name
    assert isinstance(reader.fields[f"{name}.attention.head_count_kv"].contents(), list if name == "deci" else int)


@pytest.mark.llama
def test_llama_cpp_is_built_for_any_processor() -> None:
    """The installed build uses no instructions beyond AVX2, so it does not depend on the processor that built it."""
    import llama_cpp

    used = set(re.findall(r"(\w+) = 1", llama_cpp.llama_print_system_info().decode()))
    assert not {name for name in used if name.startswith(("AVX512", "AVX_VNNI", "AMX"))}, "run `make llama`"


@pytest.mark.llama
def test_llama_cpp_computes_the_pruned_model(case: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    facts = export_gguf(case[0], tmp_path / "model.gguf", gguf_type="F32", name="pruned")
    checked = facts["llama_cpp"]
    assert checked["checked"]
    assert checked["n_tokens"] == 200
    assert checked["max_logit_difference"] < 1e-3
    assert checked["same_argmax"] == 1.0
    assert read_json(tmp_path / "model.gguf.json") == facts


@pytest.mark.llama
@pytest.mark.parametrize(("gguf_type", "bound"), [("F16", 0.02), ("Q8_0", 0.2)])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_smaller_types_come_near(
    architecture: str, gguf_type: str, bound: float, tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]
) -> None:
    tokenizer = tokenizers[architecture]
    model = cut(
        four_layers(architecture, len(tokenizer), hidden_size=64), without(KV_GROUPS, 2), without(MLP_CHANNELS, 0)
    )
    folder = save_pruned(model, tokenizer, tmp_path / "pruned")
    facts = export_gguf(folder, tmp_path / "model.gguf", gguf_type=gguf_type, name="pruned")
    assert 0 < facts["llama_cpp"]["rms_logit_difference_in_std"] < bound
    assert facts["mlp_stubs"] == [0]
    assert facts["attention_stubs"] == []
    assert facts["n_padded_mlp_channels"] == 15 + 24 + 27  # widths 17, 40 and 5 become 32, 64 and 32
    assert facts["stored_as_f16"] == []  # one group of two heads of size 16 is 32 columns, a whole block


@pytest.mark.llama
def test_rows_that_do_not_fit_fall_back_to_f16(tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = tokenizers["llama"]
    folder = save_pruned(cut(four_layers("llama", len(tokenizer))), tokenizer, tmp_path / "pruned")
    facts = export_gguf(folder, tmp_path / "model.gguf", gguf_type="Q8_0", name="pruned")
    # One group of two heads of size 8 is 16 columns of o_proj, less than a block of 32.
    assert facts["stored_as_f16"] == ["blk.1.attn_output.weight", "blk.2.attn_output.weight"]


@pytest.mark.llama
def test_an_unpruned_folder_works(tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    folder = tmp_path / "stock"
    four_layers("llama", len(tokenizers["llama"]), dtype=torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    tokenizers["llama"].save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file()
    facts = export_gguf(folder, tmp_path / "model.gguf", gguf_type="F32", name="stock")
    assert facts["n_blocks"] == 4
    assert facts["llama_cpp"]["max_logit_difference"] < 1e-3


@pytest.mark.llama
@pytest.mark.parametrize("mistake", ["order of rows", "width of the stub", "ids"])
def test_a_wrong_file_is_removed(
    mistake: str, tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers["llama"]
    model = cut(four_layers("llama", len(tokenizer)), mlp_channels=without(MLP_CHANNELS, 1))
    folder = save_pruned(model, tokenizer, tmp_path / "pruned")
    expected = "computes other logits"
    if mistake == "order of rows":
        monkeypatch.setattr(tensors, "interleave", lambda rows, _: rows)
    elif mistake == "width of the stub":
        monkeypatch.setattr("espalier.export.gguf.blocks.STUB_WIDTH", 0)
        expected = "computes other logits|llama.cpp failed"
    else:
        monkeypatch.setattr("espalier.export.gguf.vocabulary._added", lambda _: (False, False))
        expected = "makes other ids"
    with pytest.raises(UserError, match=expected):
        export_gguf(folder, tmp_path / "out/model.gguf", gguf_type="F32", name="pruned")
    assert list((tmp_path / "out").iterdir()) == []
