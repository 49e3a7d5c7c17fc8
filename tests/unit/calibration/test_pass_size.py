"""Fitting a calibration pass to the memory of a device, and dividing a model over several devices."""

import math

import pytest
import torch

from espalier.calibration.pass_size import (
    GIB,
    RESERVE,
    PassSettings,
    PassSize,
    bytes_per_layer,
    choose_pass_size,
    fit_to_memory,
)
from espalier.errors import UserError
from espalier.models.from_manifest import device_map
from espalier.models.sizes import LayerSizes, ModelSizes
from tests.unit.conftest import random_model

LLAMA_8B_LAYER = 218_103_808 * 4  # bytes of the float32 sums of its seven projections


def test_all_layers_are_taken_if_they_fit() -> None:
    size = fit_to_memory(
        PassSize(32, 4), free_bytes=100 * GIB, bytes_per_layer=LLAMA_8B_LAYER, bytes_per_sequence=2 * GIB
    )
    assert size == PassSize(32, 4)


def test_layers_come_before_sequences() -> None:
    """6 GiB free, 2 for a sequence: 4 layers of 0.8125 GiB leave 2.75 GiB, room for one sequence and not for two."""
    size = fit_to_memory(
        PassSize(32, 4), free_bytes=6 * GIB, bytes_per_layer=LLAMA_8B_LAYER, bytes_per_sequence=2 * GIB
    )
    assert size == PassSize(4, 1)


def test_configured_layers_are_kept() -> None:
    size = fit_to_memory(
        PassSize(2, 4),
        free_bytes=6 * GIB,
        bytes_per_layer=LLAMA_8B_LAYER,
        bytes_per_sequence=2 * GIB,
        layers_are_set=True,
    )
    assert size == PassSize(2, 2)


@pytest.mark.parametrize(("layers", "are_set", "needed"), [(32, False, "2.8"), (32, True, "28.0")])
def test_a_pass_that_does_not_fit_is_refused_with_numbers(layers: int, are_set: bool, needed: str) -> None:
    with pytest.raises(
        UserError, match=rf"GPU memory exhausted: {needed} GiB are needed beside the weights, 2.5 GiB are free; set"
    ):
        fit_to_memory(
            PassSize(layers, 4),
            free_bytes=int(2.5 * GIB),
            bytes_per_layer=LLAMA_8B_LAYER,
            bytes_per_sequence=2 * GIB,
            layers_are_set=are_set,
        )


def test_sums_of_a_layer_are_float32_once_for_each_need() -> None:
    model = random_model("qwen2", 40)
    layer = model.model.layers[0]
    n_params = sum(p.numel() for name, p in layer.named_parameters() if "norm" not in name)
    assert bytes_per_layer(model, {"gradient"}) == 4 * n_params
    assert bytes_per_layer(model, {"gradient", "squared_gradient"}) == 8 * n_params


@pytest.mark.parametrize(
    ("needs", "size"),
    [
        ({"gradient"}, PassSize(1, 1)),
        ({"squared_gradient"}, PassSize(1, 1)),
        ({"input_norm"}, PassSize(2, 8)),  # no backward pass, so the size stays as wanted
    ],
)
def test_passes_with_gradients_are_fitted_to_gpu_memory(
    monkeypatch: pytest.MonkeyPatch, needs: set[str], size: PassSize
) -> None:
    """The simulated GPU has room for the sums of one layer and for one sequence."""
    model = random_model("llama", 40)
    one = bytes_per_layer(model, {"gradient"})
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr("espalier.calibration.pass_size._free_gpu_bytes", lambda _: math.ceil(2 * one / (1 - RESERVE)))
    monkeypatch.setattr("espalier.calibration.pass_size._bytes_per_sequence", lambda *_: one)
    sequences = torch.zeros(8, 12, dtype=torch.int64)
    assert choose_pass_size(model, sequences, needs, PassSettings(token_budget=1000)) == size


@pytest.mark.parametrize("needs", [{"squared_gradient"}, {"gradient", "squared_gradient"}])
def test_squared_gradients_take_one_sequence_at_a_time(needs: set[str]) -> None:
    model, sequences = random_model("llama", 40), torch.zeros(8, 12, dtype=torch.int64)
    assert choose_pass_size(model, sequences, needs, PassSettings(token_budget=1000)) == PassSize(2, 1)


def test_smaller_halves_sequences_first() -> None:
    sizes, size = [], PassSize(4, 5)
    while size is not None:
        sizes.append((size.layers, size.batch_size))
        size = size.smaller()
    assert sizes == [(4, 5), (4, 2), (4, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_is_spread_evenly_and_in_order(tied: bool) -> None:
    sizes = ModelSizes((LayerSizes(2, 100, 10, 30, 8),) * 8, other_params=1000)
    devices = device_map(sizes, 3, tied=tied)
    of_layers = [devices[f"model.layers.{number}"] for number in range(8)]
    assert of_layers == sorted(of_layers)
    assert set(of_layers) == {0, 1, 2}
    assert devices["model.embed_tokens"] == 0
    assert devices["lm_head"] == (0 if tied else 2)
    load = [508 * of_layers.count(device) for device in range(3)]
    load[0] += 1000 if tied else 500
    load[2] += 0 if tied else 500
    assert max(load) <= sizes.total_params / 3 + 508  # within one layer of an even share
