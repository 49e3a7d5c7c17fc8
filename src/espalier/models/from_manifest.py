"""Load the model that a manifest describes on one device, or divide its layers among several GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from espalier.errors import UserError
from espalier.models.architecture import EMBEDDINGS, HEAD, LAYERS, NORM, ROTARY
from espalier.models.devices import count_gpus, lock_gpus
from espalier.models.loading import choose_device, load_model
from espalier.models.manifest import check_unchanged
from espalier.models.sizes import ModelSizes
from espalier.models.text_config import load_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def device_map(sizes: ModelSizes, n_devices: int, *, tied: bool) -> Mapping[str, int]:
    """Assign consecutive layers to each GPU, so that all GPUs get about the same number of parameters.

    Args:
        sizes: Sizes of the model. Half of the parameters outside the layers are counted on the first GPU, and half
            on the last GPU. With tied embeddings, all of them are counted on the first GPU.
        n_devices: Number of GPUs.
        tied: Whether input and output embeddings are one matrix.

    Returns:
        The GPU number of each module, for `from_pretrained(device_map=...)`.
    """
    before = sizes.other_params if tied else sizes.other_params // 2
    total, last = sizes.total_params, n_devices - 1
    devices = {EMBEDDINGS.removesuffix(".weight"): 0, ROTARY: 0}
    passed = before
    for number, layer in enumerate(sizes.layers):
        middle = passed + layer.params / 2
        devices[f"{LAYERS}.{number}"] = min(last, int(middle / total * n_devices))
        passed += layer.params
    return devices | {NORM: last, HEAD: 0 if tied else last}


def lock_and_choose_device(device: str, gpus: int) -> torch.device:
    """Lock the GPUs of this process and return the torch device; a second call locks no more GPUs.

    Args:
        device: `auto`, `cpu` or `cuda`. `auto` means a GPU if there is one, otherwise the CPU.
        gpus: Number of GPUs to lock.

    Raises:
        UserError: If `cuda` is requested and there is no GPU, or too few GPUs are visible.
    """
    if device != "cpu":
        lock_gpus(gpus, n_present=count_gpus())  # before CUDA is first used
    return choose_device(device)


def load_from_manifest(manifest: Mapping[str, Any], *, dtype: str, device: str, gpus: int = 1) -> PreTrainedModel:
    """Load the model that a manifest describes.

    Args:
        manifest: Content of the manifest.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu` or `cuda`.
        gpus: Number of GPUs among which to divide the layers.

    Raises:
        UserError: If the folder has changed since it was checked, it cannot be loaded, or too few GPUs are visible.
    """
    folder = check_unchanged(manifest)
    chosen = lock_and_choose_device(device, gpus)
    devices = None
    if chosen.type == "cuda" and gpus > 1:
        if gpus > torch.cuda.device_count():
            raise UserError(f"models[].gpus: got {gpus}, but {torch.cuda.device_count()} are visible to this job")
        tied = bool(load_config(folder, trust_remote_code=manifest["trust_remote_code"]).tie_word_embeddings)
        devices = device_map(ModelSizes.from_dict(manifest["structure"]), gpus, tied=tied)
    return load_model(
        folder, dtype=dtype, device=chosen, trust_remote_code=manifest["trust_remote_code"], device_map=devices
    )
