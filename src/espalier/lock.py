"""`cache/lock.yaml`: to which commit each revision was resolved, and the checksums of what was fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from espalier.errors import UserError
from espalier.files import read_json, sha256_of, whole_file

SECTIONS = ("models", "tasks", "texts")
STAGED = b"espalier_staged"


def read_lock(path: Path) -> dict[str, Any]:
    """Read the lock file; a missing one is empty.

    Raises:
        UserError: If it is not a lock file.
    """
    if not path.is_file():
        return {section: {} for section in SECTIONS}
    try:
        lock = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        lock = None
    if not isinstance(lock, dict) or set(lock) != set(SECTIONS):
        raise UserError(f"{path}: is not a lock file; delete it and run `snakemake stage`")
    return lock


def locked_commit(path: Path, repository: str, revision: str) -> str | None:
    """Return the commit that a revision is pinned to; None if it was never staged."""
    entry = read_lock(path)["models"].get(f"{repository}@{revision}")
    return entry["commit"] if entry else None


def read_staged(path: Path) -> dict[str, Any]:
    """Read from a staged text where it came from."""
    metadata = pq.read_schema(path).metadata or {}
    source: dict[str, Any] = json.loads(metadata.get(STAGED, b"{}"))
    return source


def write_lock(path: Path) -> None:
    """Write down all that lies staged beside the lock file, for this study and for others.

    Args:
        path: The lock file; `models/*/staged.json`, `datasets/*.json` and `texts/*.parquet` beside it are read.
    """
    lock: dict[str, Any] = {section: {} for section in SECTIONS}
    for file in sorted(path.parent.glob("models/*/staged.json")):
        staged = read_json(file)
        key = f"{staged['repository']}@{staged['revision']}"
        lock["models"][key] = {"commit": staged["commit"], "files": staged["files"]}
    for file in sorted(path.parent.glob("datasets/*.json")):
        staged = read_json(file)
        lock["tasks"][staged["task"]] = {"commits": staged["commits"], "files": staged["files"]}
    for file in sorted(path.parent.glob("texts/*.parquet")):
        lock["texts"][file.stem] = {**read_staged(file), "sha256": sha256_of(file)}
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(lock, sort_keys=True, allow_unicode=True), encoding="utf-8")
