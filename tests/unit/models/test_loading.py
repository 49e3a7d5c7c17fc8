"""The device on which the weights of a loaded model are placed."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from transformers import AutoModelForCausalLM

from espalier.models.loading import load_model
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
