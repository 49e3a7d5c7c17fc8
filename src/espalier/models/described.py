"""Load the model that a manifest describes, on one device or spread over several GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.files import read_json
from espalier.models.devices import n_present, take_gpus
from espalier.models.loading import choose_device, load_model
from espalier.models.manifest import check_unchanged
from espalier.models.spread import device_map
from espalier.models.sizes import ModelStructure


def take_devices(device: str, gpus: int) -> torch.device:
    """Resolve `auto` after this process has taken its GPUs; does nothing more the second time.

    Raises:
        UserError: If `cuda` is asked for and there is none.
    """
    if device != "cpu":
        take_gpus(gpus, n_present=n_present())  # before CUDA is asked anything
    return choose_device(device)


def load_described(manifest: Mapping[str, Any], *, dtype: str, device: str, gpus: int = 1) -> PreTrainedModel:
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
