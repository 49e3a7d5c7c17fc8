"""Load the model that a manifest describes, on one device or spread over several GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.files import read_json
from espalier.models.architecture import EMBEDDINGS, HEAD, LAYERS, NORM, ROTARY
from espalier.models.devices import n_present, take_gpus
from espalier.models.loading import choose_device, load_model
from espalier.models.manifest import check_unchanged
from espalier.models.sizes import ModelStructure


def device_map(structure: ModelStructure, n_devices: int, *, tied: bool) -> Mapping[str, int]:
    """Give each GPU consecutive layers of about the same size.

    Args:
        structure: Sizes of the model. What stands outside the layers counts half with the first, half with the last
            GPU, or with tied embeddings, whose one matrix is both, all with the first.
        n_devices: Number of GPUs.
        tied: Whether input and output embeddings are one matrix.

    Returns:
        The number of a GPU for each module, as `from_pretrained(device_map=...)` takes it.
    """
    before = structure.other_params if tied else structure.other_params // 2
    total, last = structure.total_params, n_devices - 1
    devices = {EMBEDDINGS.removesuffix(".weight"): 0, ROTARY: 0}
    passed = before
    for number, layer in enumerate(structure.layers):
        middle = passed + layer.params / 2
        devices[f"{LAYERS}.{number}"] = min(last, int(middle / total * n_devices))
        passed += layer.params
    return devices | {NORM: last, HEAD: 0 if tied else last}


def take_devices(device: str, gpus: int) -> torch.device:
    """Resolve `auto` after this process has taken its GPUs; does nothing more the second time.

    Raises:
        UserError: If `cuda` is asked for and there is none.
    """
    if device != "cpu":
        take_gpus(gpus, n_present=n_present())  # before CUDA is asked anything
    return choose_device(device)


def load_from_manifest(manifest: Mapping[str, Any], *, dtype: str, device: str, gpus: int = 1) -> PreTrainedModel:
    """Load the model that a manifest describes.

    Args:
        manifest: Content of the manifest.
        dtype: As `load_model`.
        device: `auto`, `cpu` or `cuda`.
        gpus: GPUs to spread the model over.

    Raises:
        UserError: If the folder has changed, or there are fewer GPUs.
    """
    folder = check_unchanged(manifest)
    chosen = take_devices(device, gpus)
    spread = None
    if chosen.type == "cuda" and gpus > 1:
        if gpus > torch.cuda.device_count():
            raise UserError(f"models[].gpus: got {gpus}, but {torch.cuda.device_count()} are visible to this job")
        tied = bool(read_json(folder / "config.json").get("tie_word_embeddings", False))
        spread = device_map(ModelStructure.from_dict(manifest["structure"]), gpus, tied=tied)
    return load_model(
        folder, dtype=dtype, device=chosen, trust_remote_code=manifest["trust_remote_code"], spread=spread
    )
