"""The folder of an adapter, as `peft` names its files. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from espalier.files import sha256_of, sha256_of_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapter_fingerprint(folder: str | Path) -> str:
    """Return a hash of all that decides what an adapter adds to the weights."""
    return sha256_of_json([sha256_of(Path(folder) / name) for name in (CONFIG, WEIGHTS)])
