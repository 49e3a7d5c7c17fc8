"""The text model inside a vision-language wrapper is loaded, pruned, scored and exported like any text model."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tools.families import README, insert_wrappers, wrappers_table
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import espalier.models.pruned  # noqa: F401 (registers the classes of pruned models)
from espalier.errors import UserError
from espalier.export.build import export_model, stock_model
from espalier.export.gguf.reference import reference_logits
from espalier.export.gguf.source import STOCK_TYPES, open_source
from espalier.files import read_json, write_json
from espalier.jobs.check_architecture import check_architecture
from espalier.models.architecture import FAMILIES
from espalier.models.folder import IncompleteConfigError, inspect_folder
from espalier.models.loading import load_model
from espalier.models.manifest import make_manifest
from espalier.models.surgery import mask, prune
from espalier.models.text_config import load_config
from espalier.models.wrappers import WRAPPERS, read_text_config
from espalier.planning.plan import Plan
from espalier.planning.stock import StockShape
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request
from tests.unit.scoring.reference import plain_score
from tests.unit.wrappers import flatten_config, random_wrapper, respell

# The wrappers of the contract, each with its text class.
TEXT_CLASSES = {
    "gemma3": "Gemma3ForCausalLM",
    "llava": "LlamaForCausalLM",
    "mistral3": "MistralForCausalLM",
    "qwen2_vl": "Qwen2ForCausalLM",
    "qwen2_5_vl": "Qwen2ForCausalLM",
    "qwen3_vl": "Qwen3ForCausalLM",
    "smolvlm": "LlamaForCausalLM",
}
# Parameters of these text models, tied: embeddings 50 * 32, final norm 32, and in each of two layers q 32 * 32, k and v
# 16 * 32 each, o 32 * 32, gate, up and down 48 * 32 each, and two norms of 32.
N_TIED = 1600 + 32 + 2 * (1024 + 2 * 512 + 1024 + 3 * 1536 + 64)
MORE_PARAMS = {
    "gemma3": 2 * (2 * 32 + 2 * 8),  # two more norms of a layer, and norms of queries and keys
    "qwen2_vl": 2 * (32 + 16 + 16),  # biases of q, k and v
    "qwen2_5_vl": 2 * (32 + 16 + 16),
    "qwen3_vl": 2 * 2 * 8,  # norms of queries and keys
}
# Layer 0 loses its attention and layer 1 its MLP; the other two blocks are kept in part.
PLAN = ([[], [1]], [[3, 7, 11, 30], []])
CPU = torch.device("cpu")
Save = Callable[..., Path]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 50, (3, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def save(tmp_path: Path, plain_tokenizer: Tokenizer) -> Save:
    """Return a function that saves a wrapper, or a random one of this type, with a tokenizer."""

    def save_wrapper(wrapper: PreTrainedModel | str, **changes: Any) -> Path:
        model = random_wrapper(wrapper, **changes) if isinstance(wrapper, str) else wrapper
        model.save_pretrained(tmp_path / "wrapper")
        PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path / "wrapper")
        return tmp_path / "wrapper"

    return save_wrapper


def logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=tokens).logits
    return found


def text_model(folder: Path) -> PreTrainedModel:
    return load_model(folder, dtype="auto", device=CPU)


# --- the text model computes what the wrapper computes ---


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in WRAPPERS for family in WRAPPERS[name].families]
)
def test_text_logits_are_exactly_those_of_the_wrapper(name: str, family: str, save: Save, tokens: torch.Tensor) -> None:
    wrapper = random_wrapper(name, tied=False, text={} if WRAPPERS[name].text_type else {"model_type": family})
    expected = logits(wrapper, tokens)
    assert expected.std() > 0.1
    model = text_model(save(wrapper))
    assert torch.equal(logits(model, tokens), expected)
    assert model.config.model_type == family


@pytest.mark.parametrize("name", TEXT_CLASSES)
def test_tied_embeddings(name: str, save: Save, tokens: torch.Tensor) -> None:
    wrapper = random_wrapper(name, tied=True)
    model = text_model(save(wrapper))
    assert torch.equal(logits(model, tokens), logits(wrapper, tokens))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("name", TEXT_CLASSES)
def test_embeddings_that_only_the_text_part_of_the_config_ties(name: str, save: Save, tokens: torch.Tensor) -> None:
    wrapper = random_wrapper(name, tied=True)
    folder = save(wrapper)
    config = read_json(folder / "config.json")
    section = config["text_config"] | {"tie_word_embeddings": True}
    write_json(folder / "config.json", config | {"tie_word_embeddings": False, "text_config": section})
    model = text_model(folder)
    assert torch.equal(logits(model, tokens), logits(wrapper, tokens))
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == model.num_parameters() == N_TIED + MORE_PARAMS.get(name, 0)
    assert manifest["config"]["tie_word_embeddings"] is True


@pytest.mark.parametrize("name", ["qwen3_vl", "smolvlm"])
def test_a_head_of_its_own_that_the_text_part_of_the_config_ties(name: str, save: Save, tokens: torch.Tensor) -> None:
    wrapper = random_wrapper(name, tied=False)
    folder = save(wrapper)
    config = read_json(folder / "config.json")
    section = config["text_config"] | {"tie_word_embeddings": True}
    write_json(folder / "config.json", config | {"text_config": section})
    model = text_model(folder)
    assert torch.equal(logits(model, tokens), logits(wrapper, tokens))
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == model.num_parameters()


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
LINEAR = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
MINISTRAL_3 = {**YARN, "llama_4_scaling_beta": 0.1}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gemma3", {"rope_parameters": LINEAR}),
        ("llava", {"model_type": "mistral", "sliding_window": 5}),
        ("mistral3", {"model_type": "ministral3", "rope_parameters": MINISTRAL_3}),
        ("qwen2_vl", {"rope_parameters": {**YARN, "mrope_section": [1, 1, 2]}}),
        ("qwen2_5_vl", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("qwen3_vl", {"rope_parameters": {**YARN, "mrope_section": [2, 1, 1], "mrope_interleaved": True}}),
    ],
)
def test_windows_and_scaled_positions(name: str, text: dict[str, Any], save: Save, tokens: torch.Tensor) -> None:
    plain, wrapper = random_wrapper(name), random_wrapper(name, text=text)
    expected = logits(wrapper, tokens)
    assert not torch.allclose(expected, logits(plain, tokens))  # the change matters
    assert torch.equal(logits(text_model(save(wrapper)), tokens), expected)


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("gemma3", "transformers 4.51"),
        ("gemma3", "transformers 4.52"),
        ("llava", "transformers 4.51"),
        ("llava", "transformers 4.52"),
        ("mistral3", "transformers 4.52"),
        ("qwen2_vl", "qwen2_vl"),
        ("qwen2_vl", "transformers 4.52"),
        ("qwen2_5_vl", "transformers 4.52"),
        ("qwen3_vl", "transformers 4.52"),
        ("smolvlm", "idefics"),
    ],
)
def test_names_of_tensors_of_older_and_newer_versions(
    name: str, spelling: str, save: Save, tokens: torch.Tensor
) -> None:
    wrapper = random_wrapper(name)
    folder = save(wrapper)
    respell(folder, spelling)
    assert torch.equal(logits(text_model(folder), tokens), logits(wrapper, tokens))
    assert inspect_folder(folder).n_params == text_model(folder).num_parameters()


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_a_config_with_the_text_model_at_its_top_level(name: str, save: Save, tokens: torch.Tensor) -> None:
    wrapper = random_wrapper(name, tied=False)
    folder = save(wrapper)
    flatten_config(folder)
    assert "text_config" not in read_json(folder / "config.json")
    assert torch.equal(logits(text_model(folder), tokens), logits(wrapper, tokens))
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["model_type"] == "qwen2"
    assert manifest["config"]["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e4}


def test_an_own_head_is_read_if_the_config_does_not_say_so(save: Save, tokens: torch.Tensor) -> None:
    """Version 4 of transformers does not write that embeddings are separate, and version 5 takes them for tied."""
    wrapper = random_wrapper("mistral3", tied=False)
    folder = save(wrapper)
    config = read_json(folder / "config.json")
    del config["tie_word_embeddings"]
    config["text_config"].pop("tie_word_embeddings", None)
    write_json(folder / "config.json", config)
    assert torch.equal(logits(text_model(folder), tokens), logits(wrapper, tokens))
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == N_TIED + 1600


def test_a_sharded_checkpoint_in_bfloat16(tmp_path: Path, save: Save, tokens: torch.Tensor) -> None:
    wrapper = random_wrapper("qwen3_vl", dtype="bfloat16")
    folder = save(wrapper)
    (folder / "model.safetensors").unlink()
    wrapper.save_pretrained(folder, max_shard_size="20kB")
    assert (folder / "model.safetensors.index.json").is_file()
    model = text_model(folder)
    assert model.dtype == torch.bfloat16
    assert torch.equal(logits(model, tokens), logits(wrapper, tokens))


# --- checks and manifest are about the text model ---


@pytest.mark.parametrize("name", TEXT_CLASSES)
def test_the_manifest_describes_the_text_model(name: str, save: Save) -> None:
    wrapper = random_wrapper(name, tied=True)
    folder = save(wrapper)
    n_params = N_TIED + MORE_PARAMS.get(name, 0)
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == inspect_folder(folder).n_params == text_model(folder).num_parameters() == n_params
    assert manifest["architecture"] == TEXT_CLASSES[name]
    assert manifest["model_type"] in FAMILIES
    assert manifest["model_type"] == read_text_config(folder)["model_type"] == load_config(folder).model_type
    assert manifest["config"]["vocab_size"] == 50
    assert manifest["config"]["tie_word_embeddings"] is True
    left_out = wrapper.num_parameters() - n_params
    assert manifest["wrapper"] == {
        "architecture": type(wrapper).__name__,
        "model_type": name,
        "n_params_left_out": left_out,
        "n_bytes_left_out": 4 * left_out,
    }
    check_architecture(folder)


def test_a_model_of_one_part_has_no_such_entry(model_folder: Path) -> None:
    assert "wrapper" not in make_manifest("A", model_folder, trust_remote_code=False, commit=None)


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_other_parts_are_not_read(save: Save, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said about image tensors that are not finite, quantised or unknown."""
    folder = save("llava")
    nan, codes = torch.full((4,), torch.nan), torch.ones(4, 4).to(torch.float8_e4m3fn)
    edit(folder, lambda tensors: tensors.update({"vision_tower.x": nan, "multi_modal_projector.x.weight": codes}))
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == N_TIED + 1600
    before = manifest["wrapper"]
    edit(folder, lambda tensors: (tensors.pop("vision_tower.x"), tensors.pop("multi_modal_projector.x.weight")))
    after = make_manifest("A", folder, trust_remote_code=False, commit=None)["wrapper"]
    assert before["n_params_left_out"] - after["n_params_left_out"] == 4 + 16
    assert before["n_bytes_left_out"] - after["n_bytes_left_out"] == 4 * 4 + 16
    assert "vision_tower" not in caplog.text


def test_sizes_that_are_left_to_transformers(save: Save) -> None:
    """config.json of Gemma 3 4B, for one, has no number of heads. Only `check_model` may import transformers."""
    defaults = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    folder = save("gemma3", text=defaults)
    n_params = inspect_folder(folder).n_params
    config = read_json(folder / "config.json")
    for key in defaults:
        del config["text_config"][key]
    write_json(folder / "config.json", config)
    with pytest.raises(IncompleteConfigError, match="leaves num_attention_heads of the text model to transformers"):
        inspect_folder(folder)
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert manifest["n_params"] == n_params
    assert manifest["structure"]["layers"][0]["n_kv_groups"] == 4
    assert manifest["config"]["head_dim"] == 256


# --- bad input ---


def rename(tensors: dict[str, torch.Tensor], old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        (
            "gemma3",
            lambda tensors: tensors.pop("language_model.model.layers.1.mlp.up_proj.weight"),
            r"tensor model\.layers\.1\.mlp\.up_proj\.weight is missing, which other layers have; copy or stage",
        ),
        (
            "llava",
            lambda tensors: tensors.pop("language_model.model.norm.weight"),
            r"tensor model\.norm\.weight is missing from the weights of LlamaForCausalLM; copy or stage",
        ),
        (
            "llava",
            lambda tensors: tensors.pop("language_model.lm_head.weight"),
            r"tensor lm_head\.weight is missing from the weights of LlamaForCausalLM; copy or stage",
        ),
        (
            "qwen3_vl",
            lambda tensors: [tensors.pop(key) for key in list(tensors) if "language_model.layers" in key],
            r"has no tensors of the layers of the text model in this Qwen3-VL, whose names begin with language_model\.",
        ),
        (
            "llava",
            lambda tensors: tensors.update({"language_model.model.layers.0.mlp.up_proj.bias": torch.ones(48)}),
            r"tensor model\.layers\.0\.mlp\.up_proj\.bias is in the weights, but LlamaForCausalLM as config\.json",
        ),
        (
            "qwen3_vl",
            lambda tensors: tensors.update({"model.language_model.extra.weight": torch.ones(48)}),
            r"tensor model\.extra\.weight is in the weights, but Qwen3ForCausalLM as config\.json describes it does",
        ),
        (
            "mistral3",
            lambda tensors: tensors.update({"model.language_model.norm.weight": torch.ones(32)}),
            r"tensors .*norm\.weight and .*norm\.weight are the same tensor of the text model in this Mistral 3; copy",
        ),
        (
            "llava",
            lambda tensors: [
                rename(tensors, key, key.replace("up_proj", "fc1")) for key in list(tensors) if "model.layers" in key
            ],
            r"LlavaForConditionalGeneration is not supported: its layers lack mlp\.up_proj, and have an MLP without a",
        ),
        (
            "mistral3",
            lambda tensors: tensors["language_model.model.norm.weight"].fill_(torch.nan),
            r"language_model\.model\.norm\.weight has values that are not finite",
        ),
    ],
)
def test_damaged_text_tensors_are_named(
    name: str, change: Callable[[dict[str, torch.Tensor]], object], line: str, save: Save
) -> None:
    folder = save(name)
    edit(folder, change)
    with pytest.raises(UserError, match=line) as raised:
        make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        (
            "gemma3",
            {"text_config": None},
            r"has no mapping text_config, which describes the text model of Gemma 3; corr",
        ),
        ("gemma3", {"text_config": ["x"]}, r"has no mapping text_config, which describes the text model of Gemma 3"),
        ("qwen2_vl", {"text_config": None}, r"has no mapping text_config, which describes the text model of Qwen2-VL"),
        (
            "gemma3",
            {"quantization_config": {"quant_method": "fp8"}},
            r"is quantised \(quantization_config in config.json: fp8\)",
        ),
        (
            "llava",
            {"model_type": "llava_x"},
            r"LlavaForConditionalGeneration is a wrapper .*\(text_config in config.js",
        ),
        (
            "llava",
            {"model_type": "qwen2_audio", "audio_config": {}, "architectures": ["Qwen2AudioForConditionalGeneration"]},
            r"Qwen2AudioForConditionalGeneration .* needs? an entry in the table of wrappers; no model that reads",
        ),
        (
            "llava",
            {"model_type": "paligemma"},
            r"it would need masks that let all tokens of a prompt attend to each oth",
        ),
        (
            "llava",
            {"model_type": "mllama"},
            r"it would need units for layers that attend to images \(cross-attention\)",
        ),
        ("llava", {"model_type": "florence2"}, r"it would need units for layers of an encoder and for cross-attention"),
    ],
)
def test_other_configs_are_refused(name: str, changes: dict[str, Any], line: str, save: Save) -> None:
    folder = save(name)
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    with pytest.raises(UserError, match=line) as raised:
        make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_hidden_layers": "two"}, r'text_config\.num_hidden_layers is "two"; allowed: a whole number'),
        ({"num_hidden_layers": 3}, r"config\.json says 3 layers but the weights hold 2"),
        ({"num_attention_heads": 5}, r"transformers cannot build|no whole heads|tensor .* has shape"),
        ({"model_type": "nonsense"}, r"transformers cannot build the model that config.json describes"),
        ({"quantization_config": {"quant_method": "awq"}}, r"is quantised \(quantization_config in config.json: awq\)"),
    ],
)
def test_values_of_the_text_model_are_checked(changes: dict[str, Any], line: str, save: Save) -> None:
    folder = save("llava")
    config = read_json(folder / "config.json")
    config["text_config"] |= changes
    write_json(folder / "config.json", config)
    with pytest.raises(UserError, match=line) as raised:
        make_manifest("A", folder, trust_remote_code=False, commit=None)
    assert "\n" not in str(raised.value)


def test_an_encoder_is_named(tmp_path: Path, plain_tokenizer: Tokenizer) -> None:
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"T5ForConditionalGeneration is not supported: .* have an encoder \("):
        inspect_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            {"model_type": "cohere2", "logit_scale": 0.25},
            r"in this LLaVA scales its logits \(logit_scale: 0\.25\), but",
        ),
        ({"model_type": "granite", "logits_scaling": 4.0}, r"in this LLaVA scales its logits \(logits_scaling: 4\.0\)"),
    ],
)
def test_a_text_model_that_scales_its_logits_is_refused(
    text: dict[str, Any], line: str, save: Save, tokens: torch.Tensor
) -> None:
    """The wrapper leaves out the scale, so its logits are others than those of the text class."""
    wrapper = random_wrapper("llava", text=text)
    folder = save(wrapper)
    with pytest.raises(UserError, match=line):
        make_manifest("A", folder, trust_remote_code=False, commit=None)
    alone = AutoModelForCausalLM.from_config(wrapper.config.text_config, dtype=torch.float32)
    alone.model.load_state_dict(wrapper.model.language_model.state_dict())
    alone.lm_head.load_state_dict(wrapper.lm_head.state_dict())
    assert not torch.allclose(logits(alone.eval(), tokens), logits(wrapper, tokens))


# --- the contract of all text models ---


@pytest.mark.parametrize("name", TEXT_CLASSES)
def test_pruned_equals_masked_scored_and_exported(name: str, save: Save, tokens: torch.Tensor, tmp_path: Path) -> None:
    """Surgery against masking, packed scores against single ones, and both kinds of export in stock text classes."""
    folder = save(name)
    intact = text_model(folder)
    shutil.rmtree(folder)  # exports do not need it
    masked, pruned, one_shape = copy.deepcopy(intact), copy.deepcopy(intact), copy.deepcopy(intact)
    mask(masked, *PLAN)
    prune(pruned, *PLAN)
    expected = logits(masked, tokens)
    assert (expected - logits(intact, tokens)).abs().max() > 0.01
    torch.testing.assert_close(logits(pruned, tokens), expected, atol=1e-5, rtol=1e-5)

    context = [5, 9, 2, 17, 3]
    requests = [Request(context, [1, 4]), Request(context, [8]), Request([*context, 1], [4, 4, 6]), Request([7], [9])]
    for request, score in zip(requests, score_requests(pruned, requests, token_budget=64), strict=True):
        assert score.loglikelihood == pytest.approx(plain_score(pruned, request)[0], abs=1e-4)

    plan = Plan((2, 2), (48, 48), *(tuple(map(tuple, kept)) for kept in PLAN))
    export_model(pruned, plan, stubs=False).save_pretrained(tmp_path / "differing")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "differing")
    assert type(loaded).__name__ == f"Pruned{TEXT_CLASSES[name]}"
    torch.testing.assert_close(logits(loaded, tokens), logits(pruned, tokens))

    prune(one_shape, [[0, 1], [0, 1]], [[3, 7, 11, 30], [0, 1, 2, 3]])
    stock_model(one_shape, StockShape(2, 2, 4)).save_pretrained(tmp_path / "stock")
    assert read_json(tmp_path / "stock/config.json")["architectures"] == [TEXT_CLASSES[name]]
    assert all(key.startswith(("model.", "lm_head.")) for key in load_file(tmp_path / "stock/model.safetensors"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "stock")
    assert type(loaded).__name__ == TEXT_CLASSES[name]
    assert torch.equal(logits(loaded, tokens), logits(one_shape, tokens))
    if loaded.config.model_type in STOCK_TYPES:  # what llama.cpp computes from the GGUF file
        found = reference_logits(open_source(tmp_path / "stock"), tokens[0].tolist())
        torch.testing.assert_close(found, logits(one_shape, tokens[:1])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gemma3", "qwen3_vl"])
def test_a_loaded_text_model_is_saved_under_its_own_names(name: str, save: Save, tokens: torch.Tensor) -> None:
    """By default, transformers writes the names of the wrapper, which it remembers from loading."""
    model = text_model(save(name))
    model.save_pretrained(folder := Path(model.name_or_path).with_name("text"))
    assert {key.partition(".")[0] for key in load_file(folder / "model.safetensors")} <= {"model", "lm_head"}
    assert "model.layers.0.mlp.up_proj.weight" in load_file(folder / "model.safetensors")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder), tokens), logits(model, tokens))


def test_the_readme_lists_the_wrappers_of_the_table() -> None:
    """`python -m tools.families` writes the table; the tests of this file hold for each of its rows."""
    page = README.read_text(encoding="utf-8")
    assert insert_wrappers(page) == page
    rows = [line.split(" | ") for line in wrappers_table().splitlines()[2:]]
    assert [row[1] for row in rows] == [f"`{name}`" for name in WRAPPERS]
    assert set(TEXT_CLASSES) <= set(WRAPPERS)
