"""Real models: every form that transformers saves is read by one path; everything else is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.models.context import context_length
from espalier.models.folder import inspect_folder
from espalier.models.loading import choose_device, load_model, load_tokenizer
from espalier.models.manifest import check_unchanged, make_manifest
from tests.unit.conftest import random_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("shards", ["1GB", "20kB"], ids=["single", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_saved_form_loads(
    tmp_path: Path,
    architecture: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    tied: bool,
    shards: str,
    dtype: torch.dtype,
) -> None:
    model = random_model(architecture, len(tokenizer), dtype, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path, max_shard_size=shards)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shards == "20kB")

    manifest = make_manifest("A", tmp_path, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == model.num_parameters()
    assert manifest["n_layers"] == 2
    loaded = load_model(check_unchanged(manifest), dtype="auto", device=CPU)
    assert loaded.dtype == dtype
    assert context_length(loaded) == 128
    ids = torch.tensor([load_tokenizer(tmp_path)("The ball is red.")["input_ids"]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert load_model(tmp_path, dtype="float32", device=CPU).dtype == torch.float32


def test_qwen3_is_supported(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    random_model("qwen3", len(tokenizer), head_dim=16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert inspect_folder(tmp_path).architecture == "Qwen3ForCausalLM"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such model folder; give one written by save_pretrained"):
        inspect_folder(tmp_path / "nowhere")


def test_no_config(model_folder: Path) -> None:
    (model_folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config.json; give a folder written by save_pretrained"):
        inspect_folder(model_folder)


def test_no_tokenizer(model_folder: Path) -> None:
    (model_folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer \(tokenizer.json\); save it there"):
        inspect_folder(model_folder)


def test_bin_weights_only(model_folder: Path) -> None:
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has only .bin weights, which are pickles and are never read; load them"):
        inspect_folder(model_folder)


def test_no_weights(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights \(model.safetensors\)"):
        inspect_folder(model_folder)


def test_truncated_weights(model_folder: Path) -> None:
    path = model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model.safetensors: is not a complete safetensors file"):
        inspect_folder(model_folder)


def test_missing_shard(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    random_model(architecture, len(tokenizer)).save_pretrained(tmp_path, max_shard_size="20kB")
    tokenizer.save_pretrained(tmp_path)
    min(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"is listed in model.safetensors.index.json but missing"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite(model_folder: Path, value: float) -> None:
    tensors = load_file(model_folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, model_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model.layers.1.mlp.up_proj.weight has values that are not finite"):
        make_manifest("A", model_folder, trust_remote_code=False, commit=None)


def test_unknown_architecture_is_refused_by_name(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=16, n_layer=2, n_head=2)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"architecture GPT2LMHeadModel is not supported: its layers lack .*q_proj"):
        inspect_folder(tmp_path)


def test_layers_must_agree_with_the_config(model_folder: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    (model_folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}), encoding="utf-8")
    with pytest.raises(UserError, match=r"config.json says 3 layers but the weights hold 2"):
        inspect_folder(model_folder)


def test_remote_code_is_off_unless_asked(model_folder: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Model"}
    (model_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=r"brings its own code \(auto_map in config.json\), which is not run"):
        inspect_folder(model_folder)
    assert inspect_folder(model_folder, trust_remote_code=True).n_layers == 2


def test_weights_changed_after_the_check(model_folder: Path) -> None:
    manifest = make_manifest("A", model_folder, trust_remote_code=False, commit=None)
    assert check_unchanged(manifest) == model_folder
    with (model_folder / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(
        UserError, match=r"it changed after it was checked. Restore it, or delete the manifest of model"
    ):
        check_unchanged(manifest)
    shutil.rmtree(model_folder)
    with pytest.raises(UserError, match=r"is missing; it changed after it was checked"):
        check_unchanged(manifest)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_cuda_without_gpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation.device: got 'cuda', but no GPU is visible"):
        choose_device("cuda")
    assert choose_device("auto") == CPU
