"""Content of GGUF files, models that raise errors, and messages in the log."""

import json
import logging
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.export.gguf import check, write
from espalier.export.gguf.blocks import lay_out
from espalier.export.gguf.source import LayerShape, open_source
from espalier.export.gguf.tensors import interleave
from espalier.export.gguf.vocabulary import describe
from espalier.export.gguf.write import export_gguf
from espalier.files import read_json
from tests.conftest import REPOSITORY
from tests.unit.export.gguf.conftest import KV_GROUPS, MLP_CHANNELS, cut, four_layers, save_pruned

Make = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]) -> Make:
    """Return a function that writes the folder of a pruned model and then overwrites keys of its config.json."""

    def make(architecture: str = "llama", *, config: dict[str, Any] | None = None, **changes: object) -> Path:
        tokenizer = tokenizers[architecture]
        path = save_pruned(cut(four_layers(architecture, len(tokenizer), **changes)), tokenizer, tmp_path / "pruned")
        edited = read_json(path / "config.json") | (config or {})
        (path / "config.json").write_text(json.dumps(edited), encoding="utf-8")
        return path

    return make


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate that llama-cpp-python is not installed."""
    monkeypatch.setattr(check, "llama_cpp_version", lambda: None)
    monkeypatch.setattr(write, "llama_cpp_version", lambda: None)


@pytest.mark.usefixtures("unchecked")
def test_without_llama_cpp_it_says_so(folder: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without llama-cpp-python, the log and the JSON file say that the file was not checked."""
    with caplog.at_level(logging.INFO):
        export_gguf(folder(), tmp_path / "out/model.gguf", gguf_type="F16", name="pruned")
    assert "not checked with llama.cpp: llama-cpp-python is not installed" in caplog.text
    facts = read_json(tmp_path / "out/model.gguf.json")
    assert facts["llama_cpp"]["checked"] is False
    assert "not installed" in facts["llama_cpp"]["reason"]
    assert facts["n_bytes"] == (tmp_path / "out/model.gguf").stat().st_size


class LlamaCpp:
    """A replacement for llama-cpp-python that fails in the ways in which the real package fails."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "llama_cpp.py"
        folder.mkdir()
        monkeypatch.setattr(check, "llama_cpp_version", lambda: "0")
        monkeypatch.setattr(write, "llama_cpp_version", lambda: "0")
        monkeypatch.setenv("PYTHONPATH", str(folder))

    def dies_by(self, signal_number: int, words: str = "") -> None:
        """Let the process print `words` and die by a signal when it loads a file."""
        die = f"sys.stderr.write({words!r}); sys.stderr.flush(); os.kill(os.getpid(), {signal_number})"
        self._file.write_text(f"import os, sys\ndef Llama(*_, **__): {die}\n", encoding="utf-8")

    def cannot_be_imported(self, error: str) -> None:
        """Let the import of the package raise an error."""
        self._file.write_text(f"raise {error}\n", encoding="utf-8")


@pytest.fixture
def llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaCpp:
    return LlamaCpp(tmp_path / "modules", monkeypatch)


def test_a_llama_cpp_of_another_processor_leaves_the_file_unchecked(
    folder: Make, tmp_path: Path, llama_cpp: LlamaCpp, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGILL is no error of the file: it is kept, and the log and the JSON file have the reason and a remedy."""
    llama_cpp.dies_by(signal.SIGILL)
    export_gguf(folder(), tmp_path / "out/model.gguf", gguf_type="F16", name="pruned")
    facts = read_json(tmp_path / "out/model.gguf.json")["llama_cpp"]
    assert facts["checked"] is False
    for said in (facts["reason"], caplog.text):
        assert "killed by SIGILL: llama-cpp-python was built for another processor" in said
        assert "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --force-reinstall" in said
    assert (tmp_path / "out/model.gguf").is_file()


@pytest.mark.parametrize(
    "error", ["OSError('libgomp.so.1: cannot open')", "RuntimeError('no library')", "ImportError('no diskcache')"]
)
def test_a_llama_cpp_that_cannot_be_loaded_leaves_the_file_unchecked(
    error: str, folder: Make, tmp_path: Path, llama_cpp: LlamaCpp
) -> None:
    llama_cpp.cannot_be_imported(error)
    facts = export_gguf(folder(), tmp_path / "out/model.gguf", gguf_type="F16", name="pruned")["llama_cpp"]
    assert facts["checked"] is False
    assert re.search(r"cannot be loaded \(\w+Error: (libgomp|no library|no diskcache).*\); install", facts["reason"])


ABORTS = "loading\nggml.c:12: GGML_ASSERT(n > 0) failed\n#0 main ()\n#1 _start ()\n"
DEATHS = {
    signal.SIGKILL: "killed by SIGKILL: most likely out of memory; give the job more, for example --set-resources",
    signal.SIGABRT: r"killed by SIGABRT: .* gave up on this file; it said: ggml\.c:12: GGML_ASSERT\(n > 0\) failed$",
    signal.SIGSEGV: "killed by SIGSEGV: llama.cpp crashed on this file; report this",
    signal.SIGFPE: "killed by SIGFPE: llama.cpp divided by zero on this file",
    signal.SIGBUS: "killed by SIGBUS: the file could not be read to its end",
    signal.SIGTERM: "killed by SIGTERM: it was ended from outside; run again",
    signal.SIGRTMIN + 1: rf"killed by signal {signal.SIGRTMIN + 1}: it was ended from outside; run again",
}


@pytest.mark.parametrize("number", list(DEATHS), ids=str)
def test_a_file_on_which_llama_cpp_dies_is_removed_and_the_signal_is_named(
    number: int, folder: Make, tmp_path: Path, llama_cpp: LlamaCpp
) -> None:
    llama_cpp.dies_by(number, ABORTS)
    with pytest.raises(UserError, match=DEATHS[number]) as caught:
        export_gguf(folder(), tmp_path / "out/model.gguf", gguf_type="F16", name="pruned")
    assert len(str(caught.value).splitlines()) == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("unchecked")
def test_content_of_a_file(folder: Make, tmp_path: Path) -> None:
    """The reader of the gguf package finds the expected block sizes, tensor types, and padded and copied weights."""
    path = folder("qwen2")
    export_gguf(path, tmp_path / "model.gguf", gguf_type="F16", name="pruned")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")

    def value(key: str) -> Any:
        return reader.get_field(key).contents()

    assert value("general.architecture") == "deci"
    assert value("deci.attention.head_count") == [4, 2, 2, 4]
    assert value("deci.attention.head_count_kv") == [2, 1, 1, 2]
    assert value("deci.feed_forward_length") == [64, 32, 64, 32]  # 48, 17, 40 and 5, padded to multiples of 32
    sizes = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    assert [value(f"deci.{key}") for key in sizes] == [8, 8, 8]  # 32 hidden / 4 heads
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors["blk.0.attn_q.bias"].tensor_type == gguf.GGMLQuantizationType.F32
    assert tensors["blk.0.attn_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert tensors["blk.0.ffn_up.weight"].tensor_type == gguf.GGMLQuantizationType.F16
    weights = load_file(path / "model.safetensors")
    expected = weights["model.layers.1.mlp.down_proj.weight"].to(torch.float16).numpy()
    padded = np.array(tensors["blk.1.ffn_down.weight"].data)
    np.testing.assert_array_equal(padded[:, :17], expected)
    assert not padded[:, 17:].any()
    assert not np.array(tensors["blk.1.ffn_up.weight"].data)[17:].any()


def test_rows_go_into_pairs() -> None:
    """A head of size 6 with halves (0 1 2) and (3 4 5) becomes pairs (0 3), (1 4), (2 5). Heads keep their order."""
    rows = torch.arange(12.0)
    assert interleave(rows, 6).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert interleave(rows[:, None], 6).flatten().tolist() == interleave(rows, 6).tolist()


def test_blocks_of_a_file() -> None:
    sizes = [
        LayerShape(0, 0, 0),  # empty: left out
        LayerShape(0, 0, 40),  # now the first block: one head of zeros
        LayerShape(4, 2, 0),  # 32 channels of zeros
        LayerShape(0, 0, 33),  # no attention
        LayerShape(0, 0, 0, has_attention_bias=True),  # not left out: the bias remains
    ]
    blocks = lay_out(sizes, 32)
    assert [block.layer for block in blocks] == [1, 2, 3, 4]
    assert [(block.n_heads, block.n_kv_heads, block.n_ff) for block in blocks] == [
        (1, 1, 64), (4, 2, 32), (0, 0, 64), (1, 1, 32),
    ]  # fmt: skip
    assert [block.n_padded for block in blocks] == [24, 0, 31, 0]
    assert len(lay_out([LayerShape(0, 0, 0)] * 3, 1)) == 1


CONFIGS = {
    "rope scaling 'yarn'": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                                "original_max_position_embeddings": 64}},
    "partial_rotary_factor": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                                  "partial_rotary_factor": 0.5}},
    "hidden_act 'gelu'": {"hidden_act": "gelu"},
    "model type 'gemma2' cannot be written as GGUF; allowed: llama, mistral, qwen2": {"model_type": "pruned_gemma2"},
    "Qwen3 has norms of queries and keys": {"model_type": "pruned_qwen3"},
}  # fmt: skip


@pytest.mark.parametrize("message", CONFIGS)
def test_what_cannot_be_expressed_is_refused(message: str, folder: Make, tmp_path: Path) -> None:
    path = folder(config=CONFIGS[message])
    with pytest.raises(UserError, match=message):
        export_gguf(path, tmp_path / "out/model.gguf", gguf_type="F32", name="pruned")
    assert not (tmp_path / "out").exists()


def test_norms_of_queries_are_refused_by_their_tensors(folder: Make, tmp_path: Path) -> None:
    path = folder()
    weights = load_file(path / "model.safetensors")
    weights["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)
    save_file(weights, path / "model.safetensors")
    with pytest.raises(UserError, match=r"q_norm.weight: GGUF has no architecture for norms"):
        open_source(path)


def test_an_unknown_type_is_refused(folder: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"export.gguf_type: got 'Q4_K_M'; allowed: F32, F16, Q8_0"):
        export_gguf(folder(), tmp_path / "model.gguf", gguf_type="Q4_K_M", name="pruned")


@pytest.mark.parametrize(
    ("value", "gguf_type", "message"),
    [(float("nan"), "F32", "not finite"), (7e4, "F16", "7e.04 does not fit float16; export as F32")],
)
def test_values_that_do_not_fit_are_refused(
    value: float, gguf_type: str, message: str, folder: Make, tmp_path: Path
) -> None:
    path = folder()
    weights = load_file(path / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][3, 4] = value
    save_file(weights, path / "model.safetensors")
    with pytest.raises(UserError, match=rf"blk.2.ffn_up.weight: .*{message}"):
        export_gguf(path, tmp_path / "out/model.gguf", gguf_type=gguf_type, name="pruned")
    assert list((tmp_path / "out").iterdir()) == []


def test_half_a_block_is_refused(folder: Make) -> None:
    path = folder()
    weights = load_file(path / "model.safetensors")
    del weights["model.layers.1.self_attn.v_proj.weight"]
    save_file(weights, path / "model.safetensors")
    with pytest.raises(UserError, match="layer 1 has q_proj, k_proj, o_proj but not v_proj"):
        open_source(path).layers()


def test_model_safetensors_is_preferred_to_an_index(folder: Make) -> None:
    """With both in a folder, the file gets the weights that transformers loads, which are those that were evaluated."""
    path = folder()
    expected = load_file(path / "model.safetensors")
    other = {name: tensor + 1 for name, tensor in expected.items()}
    save_file(other, path / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(other, "model-00001-of-00001.safetensors")}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    source = open_source(path)
    assert set(source.files.values()) == {"model.safetensors"}
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(source.read(name), expected[name].float())


@pytest.mark.llama
def test_a_sliding_window_is_the_context(folder: Make, tmp_path: Path) -> None:
    facts = export_gguf(folder("mistral", sliding_window=64), tmp_path / "m.gguf", gguf_type="F32", name="pruned")
    assert (facts["context_length"], facts["max_position_embeddings"]) == (64, 256)
    assert facts["llama_cpp"]["n_tokens"] == 64  # the check stays inside the window
    assert facts["llama_cpp"]["max_logit_difference"] < 1e-3


@pytest.mark.parametrize(
    ("architecture", "changes", "expected"),
    [
        ("mistral", {"sliding_window": 4096}, 256),
        ("mistral", {"sliding_window": None}, 256),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}, 256),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, 64),
    ],
)
def test_context_lengths(architecture: str, changes: dict[str, Any], expected: int, folder: Make) -> None:
    assert write.gguf_context_length(open_source(folder(architecture, **changes)).config) == expected


def test_chat_template_without_a_bos(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    """Without a BOS token the file has EOS as BOS, since llama.cpp would use token 11; the template must not use it."""
    without, having = (describe(tokenizers[name], 500) for name in ("qwen2", "llama"))
    assert without.special["bos"] == without.special["eos"]
    assert not without.add_bos
    assert without.chat_template == "{%- set bos_token = '' -%}" + tokenizers["qwen2"].chat_template
    assert having.chat_template == tokenizers["llama"].chat_template
    messages = [{"role": "user", "content": "Where is it?"}]
    template = jinja2.Environment(autoescape=False).from_string(without.chat_template)  # noqa: S701 (no page)
    rendered = template.render({"bos_token": "</s>", "messages": messages})
    assert rendered == tokenizers["qwen2"].apply_chat_template(messages, tokenize=False)


def test_a_second_end_of_text(folder: Make, tmp_path: Path, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    end, eos = tokenizers["llama"].convert_tokens_to_ids(["<|end|>", "</s>"])
    path = folder()
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, end]}), encoding="utf-8")
    export_gguf(path, tmp_path / "model.gguf", gguf_type="F32", name="pruned")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.get_field("tokenizer.ggml.eot_token_id").contents() == end
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == eos


def test_the_script_writes_both_files(folder: Make, tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "export_gguf_script"}
    exec((REPOSITORY / "workflow/scripts/export_gguf.py").read_text(encoding="utf-8"), namespace)  # noqa: S102
    output = tmp_path / "checkpoints/m/best.F16.gguf"
    namespace["main"](folder=folder(), output=output, gguf_type="F16", name="m best", threads=1)
    assert gguf.GGUFReader(output).get_field("general.name").contents() == "m best"
    assert read_json(f"{output}.json")["type"] == "F16"


def test_blocks_and_widths_are_those_of_the_cut() -> None:
    """The tests above assume these sizes of the pruned model."""
    assert [2 * len(groups) for groups in KV_GROUPS] == [4, 2, 2, 4]
    assert [len(channels) for channels in MLP_CHANNELS] == [48, 17, 40, 5]
