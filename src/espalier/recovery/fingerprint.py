"""Fingerprint of an adapter folder. `peft` defines the file names. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from espalier.files import sha256_of, sha256_of_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapter_fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 of an adapter's config and weights, as a hex string."""
    return sha256_of_json([sha256_of(Path(folder) / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)])
