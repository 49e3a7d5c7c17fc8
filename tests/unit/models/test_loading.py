"""Loading a model: the device of its weights, what it returns, and a tokenizer that cannot encode."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from transformers import AutoModelForCausalLM

from espalier.errors import UserError
from espalier.files import read_json, write_json
from espalier.models.loading import load_model, load_tokenizer
from espalier.models.text_config import load_config
from tests.unit.conftest import save_random_model


class AskedError(Exception):
    """Raised by the patched `from_pretrained` instead of loading."""


@pytest.mark.parametrize(
    ("device", "device_map", "expected"),
    [
        ("cpu", None, None),
        ("cuda", None, {"": torch.device("cuda")}),
        ("cuda:1", None, {"": torch.device("cuda:1")}),
        ("cuda", {"model": 0, "lm_head": 1}, {"model": 0, "lm_head": 1}),
    ],
)
def test_transformers_is_asked_to_put_weights_straight_onto_the_device(
    device: str, device_map: dict[str, int] | None, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test checks arguments only, so it needs no GPU; tests/gpu measures the memory."""
    save_random_model(tmp_path)
    asked: list[dict[str, Any]] = []

    def from_pretrained(*_: object, **settings: Any) -> NoReturn:
        asked.append(settings)
        raise AskedError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(AskedError):
        load_model(tmp_path, dtype="float32", device=torch.device(device), device_map=device_map)
    assert asked[0]["device_map"] == expected


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_all_of_a_model_is_on_the_device(device: str, tmp_path: Path) -> None:
    """The device `meta` takes the same path as a GPU: a device map with one device."""
    save_random_model(tmp_path)
    model = load_model(tmp_path, dtype="bfloat16", device=torch.device(device))
    assert {parameter.device.type for parameter in model.parameters()} == {device}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training


@pytest.mark.parametrize(
    ("key", "value"),
    [("return_dict", False), ("output_hidden_states", True), ("output_attentions", True)],
)
def test_a_model_returns_logits_alone_whatever_the_config_asks_for(key: str, value: bool, tmp_path: Path) -> None:
    save_random_model(tmp_path)
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        expected = load_model(tmp_path, dtype="float32", device=torch.device("cpu"))(tokens).logits
        write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | {key: value})
        found = load_model(tmp_path, dtype="float32", device=torch.device("cpu"))(tokens)
    assert torch.equal(found.logits, expected)
    assert found.hidden_states is None
    assert found.attentions is None
    assert getattr(load_config(tmp_path), key) is not value


@pytest.mark.parametrize("wrong", ["long", [1], {"a": 1}])
def test_a_tokenizer_that_cannot_encode_is_one_line(model_folder: Path, wrong: object) -> None:
    path = model_folder / "tokenizer_config.json"
    write_json(path, read_json(path) | {"model_max_length": wrong})
    with pytest.raises(UserError, match="transformers cannot load its tokenizer") as error:
        load_tokenizer(model_folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("architecture", ["llama"], indirect=True)
@pytest.mark.parametrize(("dropout", "is_random"), [(0.1, True), (0.0, False), (None, False)])
def test_a_tokenizer_that_draws_tokens_at_random_is_refused(
    dropout: float | None, model_folder: Path, *, is_random: bool
) -> None:
    path = model_folder / "tokenizer.json"
    content = read_json(path)
    assert content["model"]["type"] == "BPE"
    content["model"]["dropout"] = dropout
    write_json(path, content)
    if not is_random:
        load_tokenizer(model_folder)
        return
    with pytest.raises(UserError, match=r"draws the tokens of a text at random \(dropout: 0.1.* in tokenizer.json\)"):
        load_tokenizer(model_folder)
