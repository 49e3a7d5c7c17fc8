"""Spread the layers of a model over several GPUs of one machine."""

from __future__ import annotations

from collections.abc import Mapping

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
    devices = {"model.embed_tokens": 0, "model.rotary_emb": 0}
    passed = before
    for number, layer in enumerate(structure.layers):
        middle = passed + layer.params / 2
        devices[f"model.layers.{number}"] = min(last, int(middle / total * n_devices))
        passed += layer.params
    return devices | {"model.norm": last, "lm_head": 0 if tied else last}
