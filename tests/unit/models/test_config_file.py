"""`config.json` and the index of the weights: whatever they hold, the answer is a model or one line."""

import json
from pathlib import Path

import pytest

from espalier.errors import UserError
from espalier.files import read_json, write_json
from espalier.models.folder import inspect_folder
from espalier.models.manifest import make_manifest
from tests.unit.conftest import random_model


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Save a random model; its tokenizer is not read here."""
    random_model("llama", 64).save_pretrained(tmp_path)
    write_json(tmp_path / "tokenizer.json", {})
    return tmp_path


BAD_CONFIGS = [
    ("null", "holds null instead of a mapping"),
    ("[]", "holds \\[\\] instead of a mapping"),
    ("{", "cannot be read as JSON"),
    ("[" * 100_000, "cannot be read as JSON"),
    ('{"hidden_size": NaN}', "cannot be read as JSON \\(holds NaN"),
    ('{"hidden_size": ' + "1" * 5000 + "}", "cannot be read as JSON"),
    ({"max_position_embeddings": "many"}, 'max_position_embeddings is "many"; allowed'),
    ({"max_position_embeddings": 0}, "max_position_embeddings is 0; allowed: a whole number greater than 0"),
    ({"num_attention_heads": 2.5}, "num_attention_heads is 2.5; allowed: a whole number"),
    ({"num_hidden_layers": True}, "num_hidden_layers is true; allowed: a whole number"),
    ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"architectures": "Llama"}, 'architectures is "Llama"; allowed'),
    ({"hidden_size": 10**12}, "hidden_size is 1000000000000; allowed: a whole number greater than 0 and less than 2"),
    ({"attention_dropout": -1}, "attention_dropout is -1; allowed: a number from 0, less than 1"),
    ('{"rope_theta": ' + "-" + "1" * 400 + "}", "rope_theta is -1+; allowed: a number greater than 0"),
    ({"attention_dropout": 1}, "attention_dropout is 1; allowed: a number from 0, less than 1"),
    ({"bos_token_id": 10**12}, "bos_token_id is 1000000000000; allowed: a token id or a list of them, or -1 for none"),
    ({"eos_token_id": [1, -2]}, r"eos_token_id is \[1, -2\]; allowed: a token id"),
    ({"pad_token_id": 1.5}, "pad_token_id is 1.5; allowed: a token id, or -1 for none"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06; allowed: a number from 0"),
    ('{"rope_theta": 1e999}', "cannot be read as JSON \\(holds 1e999, which is too large a number"),
    ('{"rope_scaling": {"unknown": -1e999}}', "holds -1e999, which is too large"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; allowed: a whole number from 1 to 100,000"),
    ({"num_labels": 10**6}, "num_labels is 1000000; allowed: a whole number from 1 to 100,000"),
    ({"model_type": "\ud800"}, "model_type is .*; allowed: a text of at most 200 printable characters"),
    ({"architectures": ["\x1b[31mLlama"]}, "architectures is .*; allowed: a list of texts of at most 200 printable"),
    ({"hidden_act": "x" * 100_000}, "hidden_act is .*; allowed: a text of at most 200 printable"),
    ({"sliding_window": -4}, "sliding_window is -4; allowed: a number from 0"),
    ({"max_window_layers": 0.5}, "max_window_layers is 0.5; allowed: a whole number from 0"),
    ({"rope_scaling": {"factor": 0}}, "rope_scaling.factor is 0; allowed: a number greater than 0"),
    (
        {"rope_parameters": {"full_attention": {"rope_theta": -1}}},
        "rope_parameters.full_attention.rope_theta is -1; allowed: a number greater than 0",
    ),
    ({"head_dim": 7}, "which are no whole heads of 7"),
    ({"quantization_config": "x" * 5000}, "is quantised"),
]


@pytest.mark.parametrize(("content", "line"), BAD_CONFIGS, ids=[line for _, line in BAD_CONFIGS])
def test_a_bad_config_is_one_line_that_deletes_nothing(model_folder: Path, content: object, line: str) -> None:
    path = model_folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(read_json(path) | content))
    with pytest.raises(UserError, match=line) as error:
        inspect_folder(model_folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert "delete" not in str(error.value)


def test_what_real_models_have_is_accepted(model_folder: Path) -> None:
    """Lists of end tokens (Llama 3), no padding as -1 (Llama 1), no window, frequencies of two types of layers."""
    rope = {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8}, "sliding_attention": {}}
    known = {"eos_token_id": [1, 2], "pad_token_id": -1, "bos_token_id": None, "sliding_window": None}
    config = {**known, "attention_dropout": 0.0, "rope_scaling": None, "rope_parameters": rope}
    write_json(model_folder / "config.json", read_json(model_folder / "config.json") | config)
    inspect_folder(model_folder)


def test_a_whole_number_may_have_a_decimal_point(model_folder: Path) -> None:
    write_json(model_folder / "config.json", read_json(model_folder / "config.json") | {"vocab_size": 64.0})
    inspect_folder(model_folder)


@pytest.mark.parametrize(
    ("index", "line"),
    [
        ({}, "has no weight_map"),
        ([], "instead of a mapping"),
        ({"weight_map": []}, "has no weight_map"),
        ({"weight_map": {"model.norm.weight": 3}}, "weight_map gives '3' for model.norm.weight"),
        ({"weight_map": {"model.norm.weight": "../other.safetensors"}}, "allowed: a file name"),
        ({"weight_map": {"model.norm.weight": "a" * 5000}}, "allowed: a file name"),
        ({"weight_map": {"model.norm.weight": "a.safetensors"}}, "has no mapping `metadata`, which transformers reads"),
        ({"weight_map": {"model.norm.weight": "a.safetensors"}, "metadata": []}, "has no mapping `metadata`"),
        ({"weight_map": {"model.norm.weight": "a\x1b[31m.safetensors"}}, "allowed: a file name"),
    ],
)
def test_a_bad_index_is_one_line(model_folder: Path, index: object, line: str) -> None:
    (model_folder / "model.safetensors").rename(model_folder / "model-00001-of-00001.safetensors")
    write_json(model_folder / "model.safetensors.index.json", index)
    with pytest.raises(UserError, match=line):
        inspect_folder(model_folder)


def test_a_file_whose_name_cannot_be_printed_is_one_line(model_folder: Path) -> None:
    (model_folder / "extra\x1b[31m.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="characters that cannot be printed; rename the file") as error:
        inspect_folder(model_folder)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "change", [{"hidden_act": "unknown"}, {"model_type": "nothing"}, {"rope_parameters": {"rope_type": "nothing"}}]
)
def test_what_transformers_cannot_build_is_one_line(model_folder: Path, change: dict[str, object]) -> None:
    write_json(model_folder / "config.json", read_json(model_folder / "config.json") | change)
    with pytest.raises(UserError, match="transformers cannot build the model that config") as error:
        make_manifest("A", model_folder, trust_remote_code=False, commit=None)
    assert "\n" not in str(error.value)
