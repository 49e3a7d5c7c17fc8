"""Model folders: every form that transformers saves is loaded; any other folder raises an error that names it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from espalier.errors import UserError
from espalier.export.build import export_model
from espalier.files import read_json, write_json
from espalier.models.architecture import find_unsupported
from espalier.models.context import context_length
from espalier.models.folder import inspect_folder
from espalier.models.loading import choose_device, load_model, load_tokenizer
from espalier.models.manifest import check_unchanged, make_manifest
from espalier.models.sizes import ModelSizes
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from tests.unit.conftest import random_model
from tests.unit.models.test_expert_families import expert_model

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


Tensors = dict[str, torch.Tensor]
EDITS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "a head is missing": (lambda t: t.pop("lm_head.weight"), r"tensor lm_head.weight is missing from the weights"),
    "embeddings are missing": (
        lambda t: t.pop("model.embed_tokens.weight"), r"tensor model.embed_tokens.weight is missing",
    ),
    "a norm is missing": (
        lambda t: t.pop("model.layers.0.input_layernorm.weight"),
        r"tensor model.layers.0.input_layernorm.weight is missing",
    ),
    "two are missing": (
        lambda t: (t.pop("model.norm.weight"), t.pop("model.layers.1.post_attention_layernorm.weight")),
        r"tensor model.layers.1.post_attention_layernorm.weight and 1 more are missing",
    ),
    "a projection of one layer is missing": (
        lambda t: t.pop("model.layers.1.mlp.up_proj.weight"),
        r"tensor model.layers.1.mlp.up_proj.weight is missing, which other layers have",
    ),
    "a bias that is not read": (
        lambda t: t.update({"model.layers.1.self_attn.q_proj.bias": torch.ones(32)}),
        r"tensor model.layers.1.self_attn.q_proj.bias is in the weights, but LlamaForCausalLM .* does not read it",
    ),
    "a bias of the head": (
        lambda t: t.update({"lm_head.bias": torch.ones(50)}), r"tensor lm_head.bias is in the weights",
    ),
    "a layer too many": (
        lambda t: t.update({k.replace("layers.1", "layers.2"): v.clone() for k, v in t.items() if "layers.1" in k}),
        r"config.json says 2 layers but the weights hold 3",
    ),
    "another vocabulary": (
        lambda t: t.update({"model.embed_tokens.weight": torch.ones(48, 32)}),
        r"tensor model.embed_tokens.weight has shape \(48, 32\), but config.json asks for \(50, 32\)",
    ),
    "another width": (
        lambda t: t.update({"model.layers.1.mlp.down_proj.weight": torch.ones(32, 47)}),
        r"tensor model.layers.1.mlp.down_proj.weight has shape \(32, 47\), but config.json asks for \(32, 48\)",
    ),
    "a projection in fp8": (
        lambda t: t.update(
            {"model.layers.0.mlp.up_proj.weight": t["model.layers.0.mlp.up_proj.weight"].to(torch.float8_e4m3fn)}
        ),
        r"is quantised \(tensor model.layers.0.mlp.up_proj.weight is of type F8_E4M3\); give the checkpoint in full",
    ),
    "scales beside the weights": (
        lambda t: t.update({"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1, 1)}),
        r"is quantised \(tensor model.layers.0.mlp.up_proj.weight_scale_inv is of type F32\)",
    ),
    "biases in int32, as of GPTQ": (
        lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32, dtype=torch.int32)}),
        r"is quantised \(tensor model.layers.0.self_attn.q_proj.bias is of type I32\)",
    ),
    "a complex weight": (
        lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.complex64)}),
        r"tensor model.norm.weight is of type C64; allowed: BF16, F16, F32, F64",
    ),
    "projections in int8": (
        lambda t: t.update({k: v.to(torch.int8) for k, v in t.items() if "q_proj" in k}),
        r"is quantised \(tensor model.layers.0.self_attn.q_proj.weight is of type I8\)",
    ),
}  # fmt: skip


def edited(folder: Path, tokenizer: object, edit: Callable[[Tensors], object] | None = None, **config: object) -> Path:
    """Save a small Llama and change its tensors; return the folder."""
    random_model("llama", 50, **config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    if edit:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("case", EDITS)
def test_tensors_that_are_not_the_architectures_are_named(case: str, tmp_path: Path, plain_tokenizer: object) -> None:
    """The check before any computation refuses the folder, and so does `load_model`."""
    edit, message = EDITS[case]
    edited(tmp_path, plain_tokenizer, edit)
    with pytest.raises(UserError, match=message):
        make_manifest("A", tmp_path, trust_remote_code=False, commit=None)
    names_a_tensor = "config.json says" not in message and "which other layers" not in message
    with pytest.raises(UserError, match=message if names_a_tensor else r"model.layers.\d"):
        load_model(tmp_path, dtype="auto", device=CPU)


@pytest.mark.parametrize("method", ["fp8", "gptq", "bitsandbytes"])
def test_a_quantised_config_is_refused(method: str, tmp_path: Path, plain_tokenizer: object) -> None:
    edited(tmp_path, plain_tokenizer)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": method}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"is quantised \(quantization_config in config.json: {method}\); give the che"
    ):
        inspect_folder(tmp_path)


def test_stored_buffers_are_no_parameters(tmp_path: Path, plain_tokenizer: object) -> None:
    """Checkpoints of Llama 2 contain the rotary frequencies of each layer."""
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in (0, 1)}
    edited(tmp_path, plain_tokenizer, lambda tensors: tensors.update(buffers))
    n_params = load_model(tmp_path, dtype="auto", device=CPU).num_parameters()
    # 2 x 50 x 32 embeddings, 32 final norm; a layer: 2 x 32 x 32 + 2 x 16 x 32 attention, 3 x 48 x 32 MLP, 2 x 32 norms
    assert n_params == 3200 + 32 + 2 * (3072 + 4608 + 64) == 18_720
    assert make_manifest("A", tmp_path, trust_remote_code=False, commit=None)["n_params"] == n_params
    assert inspect_folder(tmp_path).n_params == n_params


BUFFERS = {
    "cosines": {"model.layers.0.self_attn.rotary_emb.cos_cached": torch.ones(1, 1, 128, 8)},
    "frequencies of the model": {"model.rotary_emb.inv_freq": torch.ones(4)},
    "not finite": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.full((4,), torch.nan)},
    "a causal mask": {"model.layers.0.self_attn.bias": torch.ones(1, 1, 128, 128, dtype=torch.bool)},
    "a masked value": {"model.layers.0.self_attn.masked_bias": torch.tensor(-1e4)},
    "positions": {"model.position_ids": torch.arange(128)[None]},
}


@pytest.mark.parametrize("case", BUFFERS)
def test_stored_buffers_of_other_kinds_change_nothing(case: str, tmp_path: Path, plain_tokenizer: object) -> None:
    ids = torch.arange(40)[None]
    expected = load_model(edited(tmp_path, plain_tokenizer), dtype="auto", device=CPU)(ids).logits
    edited(tmp_path, plain_tokenizer, lambda tensors: tensors.update(BUFFERS[case]))
    assert make_manifest("A", tmp_path, trust_remote_code=False, commit=None)["n_params"] == 18_720
    assert torch.equal(load_model(tmp_path, dtype="auto", device=CPU)(ids).logits, expected)


@pytest.mark.parametrize("prefix", ["", "base_model.model.model.", "module.model.", "transformer."])
def test_names_of_another_module_are_named(prefix: str, tmp_path: Path, plain_tokenizer: object) -> None:
    """A model saved without its head has no prefix `model.`. Nothing says that its architecture is not supported."""
    edited(tmp_path, plain_tokenizer)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {name.replace("model.", prefix, 1): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"its tensors have names such as {prefix}layers.0.\S+, but those of Llama"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model.fp16.safetensors"])
def test_weights_under_another_name_are_named(name: str, model_folder: Path) -> None:
    (model_folder / "model.safetensors").rename(model_folder / name)
    with pytest.raises(UserError, match=rf"has neither model.safetensors nor model.safetensors.index.json, but {name}"):
        inspect_folder(model_folder)


@pytest.mark.parametrize("whole", [True, False], ids=["beside a model", "alone"])
def test_an_adapter_is_refused(model_folder: Path, *, whole: bool) -> None:
    """With PEFT installed, transformers would add it to the model."""
    write_json(model_folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "other"})
    if not whole:
        (model_folder / "config.json").unlink()
        (model_folder / "model.safetensors").rename(model_folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"has a PEFT adapter \(adapter_config.json\).*; merge it into its base model"):
        make_manifest("A", model_folder, trust_remote_code=False, commit=None)


@pytest.mark.parametrize("differ", [False, True], ids=["equal", "different"])
def test_a_tensor_in_two_shards(tmp_path: Path, plain_tokenizer: object, *, differ: bool) -> None:
    """Of two tensors of one name, transformers keeps the last, other programs the one that the index names."""
    random_model("llama", 50).save_pretrained(tmp_path, max_shard_size="20kB")
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    first, *_, last = sorted(tmp_path.glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(last) | {name: tensor + differ}, last, metadata={"format": "pt"})
    if not differ:
        assert make_manifest("A", tmp_path, trust_remote_code=False, commit=None)["n_params"] == 18_720
        return
    with pytest.raises(UserError, match=rf"tensor {name} is in both {first.name} and {last.name}, with different val"):
        make_manifest("A", tmp_path, trust_remote_code=False, commit=None)


def test_experts_whose_number_per_token_has_another_key(tmp_path: Path, plain_tokenizer: object) -> None:
    """ERNIE 4.5 calls it `moe_k`. The config is right, so nothing says to correct it."""
    expert_model("mixtral").save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    del config["num_experts_per_tok"]
    write_json(tmp_path / "config.json", config)
    with pytest.raises(UserError, match=r"MixtralForCausalLM is not supported: its layers have experts, but config.js"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize(("stored", "n_params"), [("none", 17_120), ("same", 17_120), ("own", 18_720)])
def test_a_head_of_its_own_counts_whatever_the_config_ties(
    stored: str, n_params: int, tmp_path: Path, plain_tokenizer: object
) -> None:
    def edit(tensors: Tensors) -> None:
        if stored == "same":
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        if stored == "own":
            tensors["lm_head.weight"] = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))

    edited(tmp_path, plain_tokenizer, edit, tie_word_embeddings=True)
    manifest = make_manifest("A", tmp_path, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == load_model(tmp_path, dtype="auto", device=CPU).num_parameters() == n_params


# Names of modules as published checkpoints have them.
KNOWN = {
    "latent attention": ["self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj", "self_attn.q_a_proj", "attn.q_b_proj"],
    "experts in a layout that is not in the table of layouts": ["mlp.experts.0.w1", "block_sparse_moe.input_linear"],
    "a router or shared experts, but no routed experts": [
        "mlp.shared_expert.up_proj", "mlp.shared_experts.up_proj", "shared_mlp.input_linear", "feed_forward.router",
    ],
    "a state space, a convolution or linear attention": [
        "mamba.in_proj", "mixer.in_proj", "linear_attn.in_proj", "conv.in_proj", "short_conv.in_proj",
        "recurrent_block.linear_x", "time_mix.key", "rwkv.key",
    ],
    "a fused projection that is not in the table of layouts": [
        "attention.query_key_value", "attn.c_attn", "attn.Wqkv", "self_attn.W_pack", "attention.wqkv", "att_proj",
    ],
    "an MLP without a gate": ["fc1", "fc2", "mlp.c_fc", "mlp.dense_h_to_4h"],
    "an encoder": ["encoder.block.0.attention"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "title"), [(name, title) for title, names in KNOWN.items() for name in names])
def test_each_module_shows_its_construction(name: str, title: str) -> None:
    found = find_unsupported([f"model.layers.0.{name}.weight", "model.norm.weight"])
    assert found is not None
    assert found.title == title
    assert find_unsupported(["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"]) is None


@pytest.mark.parametrize(
    ("names", "line"),
    [
        # Layer 0 is dense, so no name is absent from all layers.
        (
            ["mlp.gate", "mlp.experts.0.w1"],
            r"its layers have experts in a layout that is not in the table of layouts \(pruning them would need an",
        ),
        (
            ["mlp.gate", "mlp.shared_expert.up_proj"],
            r"its layers have a router or shared experts, but no routed experts \(pruning experts would need routed",
        ),
        (
            ["feed_forward.router", "feed_forward.shared_expert.up_proj"],
            r"its layers have a router or shared experts, but no routed experts \(pruning experts would need routed",
        ),
        (["block_sparse_moe.input_linear"], r"its layers have experts in a layout that is not in the table of layouts"),
        (["linear_attn.in_proj"], r"its layers have a state space, a convolution or linear attention \(pruning them"),
        (["self_attn.kv_b_proj"], r"its layers have latent attention \(pruning it would need groups of heads"),
        (["attention.query_key_value"], r"its layers have a fused projection that is not in the table of layouts \("),
    ],
)
def test_a_known_construction_is_refused_with_what_it_would_need(
    tmp_path: Path, plain_tokenizer: object, names: list[str], line: str
) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("model.layers.1.mlp.")]:
            del tensors[name]
        tensors.update({f"model.layers.1.{name}.weight": torch.ones(4, 32) for name in names})

    edited(tmp_path, plain_tokenizer, edit)
    with pytest.raises(UserError, match=f"architecture LlamaForCausalLM is not supported: {line}"):
        make_manifest("A", tmp_path, trust_remote_code=False, commit=None)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mlp.experts.1.up_proj": None}, r"model.layers.1 has no up projection of expert 1"),
        ({"mlp.experts.0.down_proj": None, "mlp.experts.0.up_proj": None, "mlp.experts.0.gate_proj": None},
         r"model.layers.1 has no down projection of expert 0"),
        ({"mlp.experts.1.up_proj": (4, 32)}, r"the experts of model.layers.1 differ in shape \(expert 1: "),
        ({"mlp.experts.1.up_proj": (4, 32), "mlp.experts.0.up_proj": (4, 32)}, "the experts of model.layers.1 differ"),
        ({"mlp.gate": (3, 32)}, r"have shapes \(2, 16, 32\) and \(2, 32, 8\) and their router \(3, 32\), which do not"),
        ({"mlp.gate": None}, r"its layers have experts in a layout that is not in the table of layouts"),
    ],
)  # fmt: skip
def test_incomplete_experts_are_named(
    change: dict[str, tuple[int, int] | None], line: str, tmp_path: Path, plain_tokenizer: object
) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        shapes = {"gate_proj": (8, 32), "up_proj": (8, 32), "down_proj": (32, 8)}
        new: dict[str, tuple[int, int] | None] = {"mlp.gate": (2, 32)}
        new |= {f"mlp.experts.{expert}.{name}": shape for expert in (0, 1) for name, shape in shapes.items()}
        for name in [name for name in tensors if name.startswith("model.layers.1.mlp.")]:
            del tensors[name]
        tensors.update(
            {f"model.layers.1.{name}.weight": torch.ones(shape) for name, shape in (new | change).items() if shape}
        )

    edited(tmp_path, plain_tokenizer, edit)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_experts_per_tok": 1}), encoding="utf-8")
    with pytest.raises(UserError, match=line):
        inspect_folder(tmp_path)


@pytest.mark.parametrize("chosen", [0, 7, "two", 2.5])
def test_a_router_chooses_among_its_experts(chosen: object, tmp_path: Path, plain_tokenizer: object) -> None:
    expert_model("mixtral").save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_experts_per_tok": chosen}), encoding="utf-8")
    line = rf"num_experts_per_tok in config.json is {chosen!r}, but model.layers.0 has 6 experts; allowed: 1 to 6"
    with pytest.raises(UserError, match=line):
        inspect_folder(tmp_path)


def test_tensors_outside_the_decoder_are_left_alone(
    tmp_path: Path, plain_tokenizer: object, caplog: pytest.LogCaptureFixture
) -> None:
    edited(tmp_path, plain_tokenizer, lambda tensors: tensors.update({"v_head.summary.weight": torch.ones(1, 32)}))
    with caplog.at_level("WARNING", logger="espalier"):
        assert make_manifest("A", tmp_path, trust_remote_code=False, commit=None)["n_params"] == 18_720
    assert "tensors outside the decoder are ignored, such as v_head.summary.weight" in caplog.text


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "extra.txt"])
@pytest.mark.parametrize("is_link", [True, False], ids=["broken link", "folder"])
def test_what_stands_for_a_file_must_be_one(model_folder: Path, name: str, *, is_link: bool) -> None:
    """Everything with such a name gets a checksum in the manifest."""
    path = model_folder / name
    path.unlink(missing_ok=True)
    if is_link:
        path.symlink_to("nowhere")
    else:
        path.mkdir()
    problem = "is a link to a file that does not exist" if is_link else "is a folder, not a file"
    with pytest.raises(UserError, match=f"{name}: {problem}; give the file that belongs there"):
        inspect_folder(model_folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "null", "[]", "3", "\x00" * 1000, "x" * 5000])
def test_a_damaged_tokenizer_is_one_line(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, name: str, content: str
) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(
        UserError, match=r"transformers cannot load its tokenizer \(\w+: .*; save it there again"
    ) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("architecture", "head_dim"),
    [("qwen3", 128), ("gemma", 256), ("gemma3_text", 256), ("glm", 128), ("seed_oss", 128), ("mistral", 8)],
)
def test_a_config_without_the_head_size(
    architecture: str, head_dim: int, tmp_path: Path, plain_tokenizer: object
) -> None:
    """The class of transformers then has its default, which differs from hidden size / heads = 8 in most of these."""
    random_model(architecture, 600, head_dim=head_dim).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    complete = make_manifest("A", tmp_path, trust_remote_code=False, commit=None)
    config = read_json(tmp_path / "config.json")
    assert config.pop("head_dim") == head_dim
    write_json(tmp_path / "config.json", config)
    manifest = make_manifest("A", tmp_path, trust_remote_code=False, commit=None)
    assert inspect_folder(tmp_path).sizes == ModelSizes.from_dict(manifest["structure"])
    assert [layer["n_kv_groups"] for layer in manifest["structure"]["layers"]] == [2, 2]
    assert manifest["structure"] == complete["structure"]
    assert manifest["config"].get("head_dim") == (None if head_dim == 8 else head_dim)


def test_a_pruned_model_without_a_block_is_no_base_model(tmp_path: Path, plain_tokenizer: object) -> None:
    """The folder can be exported and evaluated, but its layer 1 has no MLP whose channels could be counted."""
    model = random_model("llama", 600)
    kept = ((0,), (0, 1)), (tuple(range(7)), ())
    prune(model, *kept)
    export_model(model, Plan((2, 2), (48, 48), *kept), stubs=False).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    message = "its layer 1 has no mlp, because the model is already pruned; prune its base model instead"
    with pytest.raises(UserError, match=message):
        inspect_folder(tmp_path, trust_remote_code=True)
