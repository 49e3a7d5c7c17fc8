"""Checks before an export: plan, metrics, recovered and base weights belong together, and the disk has enough space."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.errors import UserError
from espalier.files import sha256_of
from espalier.models.manifest import check_unchanged
from espalier.models.sizes import ModelSizes
from espalier.planning.plan import Plan
from espalier.progress import Progress
from espalier.recipe import check_settings, plan_hash, weights_hash
from espalier.recovery.fingerprint import recovered_fingerprint

_RECOVERED = {"adapter": "adapter", "trained_weights": "trained weights"}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ROOM_BESIDE_WEIGHTS = 32 * 2**20  # tokenizer, card, plan, parity


def check_plan(manifest: Mapping[str, Any], plan: Mapping[str, Any], results: Mapping[str, Any]) -> Plan:
    """Check that the plan was made from these weights and that the results were made with this plan.

    Args:
        manifest: Manifest of the model.
        plan: Content of `plan.json`.
        results: `weights`, `plan` and, for a recovered model, `adapter` or `trained_weights` from the recipe of
            `metrics.json`, and the evaluated `n_params`.

    Returns:
        The plan.

    Raises:
        UserError: If a checksum or the number of parameters differs. The message has both values.
    """
    names = {"model": manifest["model"], "experiment": plan["experiment"]}
    weights = weights_hash(manifest)
    check_settings(
        f"export: the plan of {plan['model']!r}, {plan['experiment']!r}", plan, **names,
        settings={"weights": weights}, remedy="restore that revision of the model, or make the plan again",
    )  # fmt: skip
    check_settings(
        f"export: the metrics of {plan['experiment']!r}", {**names, "recipe": {"settings": results}},
        **names,
        settings={"weights": weights, "plan": plan_hash(plan)} | {key: results.get(key) for key in _RECOVERED},
        remedy="evaluate it again",
    )  # fmt: skip
    checked = Plan.from_dict(plan)
    n_params = sum(checked.layer_params(structure := ModelSizes.from_dict(manifest["structure"])))
    if (n_params := n_params + structure.other_params) != results["n_params"]:
        raise UserError(
            f"export: the plan keeps {n_params:,} parameters, but {results['n_params']:,} were evaluated; "
            "evaluate it again"
        )
    return checked


def check_recovered(results: Mapping[str, Any], folder: Path | None) -> None:
    """Check that the results were made with this adapter or these trained weights, or without recovery.

    Args:
        results: `adapter` or `trained_weights` from the recipe of `metrics.json`; missing or None without recovery.
        folder: Folder of the adapter or weights that the export uses; None for a model that was only pruned.

    Raises:
        UserError: If they differ. The message has both checksums.
    """
    found = {} if folder is None else recovered_fingerprint(folder)
    for key, name in _RECOVERED.items():
        if results.get(key) != found.get(key):
            raise UserError(
                f"export: the metrics are of {name} {_short_checksum(results.get(key))}, but "
                f"{_short_checksum(found.get(key))} is to be merged; run `snakemake recovered` again"
            )


def check_weights(manifest: Mapping[str, Any]) -> Path:
    """Check every file of the base model against its checksum, and return its folder.

    Raises:
        UserError: If a file is missing, or its content has changed since the manifest was written.
    """
    folder = check_unchanged(manifest)
    files = manifest["files"]
    with Progress("checksums", total=sum(file["bytes"] for file in files.values()), unit="B") as progress:
        for name, file in files.items():
            if (found := sha256_of(folder / name)) != file["sha256"]:
                raise UserError(
                    f"{folder / name}: has checksum {_short_checksum(found)}, not {_short_checksum(file['sha256'])} "
                    "as when it was checked; restore that revision of the model"
                )
            progress.advance(file["bytes"])
    return folder


def check_space(place: Path, manifest: Mapping[str, Any], n_params: int, dtype: str) -> None:
    """Check that a checkpoint fits on the disk.

    Args:
        place: Folder to write to; it is created if it does not exist.
        manifest: Manifest of the base model.
        n_params: Number of parameters to write.
        dtype: `stored` or a key of `BYTES`.

    Raises:
        UserError: If it does not fit. The message has the needed and the free space.
    """
    stored = sum(manifest["files"][name]["bytes"] for name in manifest["weight_files"])
    stored = (stored - manifest.get("wrapper", {}).get("n_bytes_left_out", 0)) / manifest["n_params"]
    needed = int(n_params * (BYTES.get(dtype) or stored)) + _ROOM_BESIDE_WEIGHTS
    place.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(place).free) < needed:
        raise UserError(
            f"{place}: no room: the checkpoint needs {_format_bytes(needed)}, {_format_bytes(free)} are free; make room"
        )


def _format_bytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def _short_checksum(checksum: str | None) -> str:
    return checksum[:12] if checksum else "(none)"
