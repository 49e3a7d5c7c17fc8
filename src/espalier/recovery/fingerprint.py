"""Fingerprints of the folders that recovery writes: an adapter, or all weights. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from espalier.files import sha256_of, sha256_of_json
from espalier.planning.plan import Plan

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter folder. `peft` defines their names."""
TRAINED_WEIGHTS = "trained_weights.safetensors"
"""File of a folder with all weights of a recovered model."""


def adapter_fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 of an adapter's config and weights, as a hex string."""
    return sha256_of_json([sha256_of(Path(folder) / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)])


def has_trained_weights(folder: str | Path) -> bool:
    """Return whether a folder that recovery wrote holds all weights. Otherwise it holds an adapter."""
    return (Path(folder) / TRAINED_WEIGHTS).is_file()


def recovered_fingerprint(folder: str | Path) -> dict[str, str]:
    """Return the entry of recipes that identifies the result of a recovery.

    The key is `trained_weights` for a folder with all weights, and `adapter` for an adapter.
    """
    if has_trained_weights(folder):
        return {"trained_weights": sha256_of(Path(folder) / TRAINED_WEIGHTS)}
    return {"adapter": adapter_fingerprint(folder)}


def kept_groups_hash(plan: Plan) -> str:
    """Return the hash of the groups that a plan keeps. Weight files of recovery store it."""
    return sha256_of_json(plan.to_dict()["layers"])
