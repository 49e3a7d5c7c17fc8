"""The lock file `cache/lock.yaml`: the commit of each staged revision, and the checksums of the fetched files.

A locked revision stays at its commit: every study that stages it again fetches that commit. To take another commit, a
user deletes the entry.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import yaml

from espalier.errors import UserError
from espalier.files import atomic_file, locked, read_json, sha256_of

logger = logging.getLogger(__name__)

LOCK_FILE = Path("cache/lock.yaml")
SECTIONS = ("models", "tasks", "texts")
STAGED = b"espalier_staged"


def read_lock(path: Path) -> dict[str, Any]:
    """Read the lock file; all sections are empty if it does not exist.

    Raises:
        UserError: If the file is not a lock file.
    """
    if not path.is_file():
        return {section: {} for section in SECTIONS}
    try:
        lock = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):
        lock = None
    if not _is_lock(lock):
        raise UserError(f"{path}: is not a lock file; delete it and run `snakemake stage`")
    content: dict[str, Any] = lock
    return content


def _is_lock(content: Any) -> bool:
    """Return whether a content has all sections, with the mappings in their entries that are read."""
    if not isinstance(content, dict) or set(content) != set(SECTIONS):
        return False
    if not all(isinstance(section, dict) for section in content.values()):
        return False
    return all(
        isinstance(entry, dict)
        and isinstance(entry.get("files", {}), dict)
        and isinstance(entry.get("revisions", {}), dict)
        and ("commit" in entry if section == "models" else True)
        and (isinstance(entry.get("commits"), dict) if section == "tasks" else True)
        for section, entries in content.items()
        for entry in entries.values()
    )


def locked_commit(path: Path, repository: str, revision: str) -> str | None:
    """Return the commit that a revision is pinned to; None if it was never staged."""
    entry = read_lock(path)["models"].get(f"{repository}@{revision}")
    return entry["commit"] if entry else None


def locked_dataset(path: Path, dataset: str, revision: str, *, section: str, key: str) -> str | None:
    """Return the commit that a revision of a dataset is pinned to; None if it was never staged.

    Args:
        path: The lock file.
        dataset: Repository of the dataset.
        revision: Branch, tag or commit.
        section: `tasks` or `texts`.
        key: Entry to search first. A pin holds for the whole dataset, so other entries are searched next.
    """
    pins = [pin for pin in _pins(read_lock(path)) if pin.dataset == dataset]
    own = [pin.commit for pin in pins if (pin.section, pin.key) == (section, key)]
    others = [pin.commit for pin in pins if pin.revision == revision]
    return next((commit for commit in (*own, *others) if commit), None)


class Pin(NamedTuple):
    """A pinned dataset.

    Attributes:
        section: Section of its entry, `tasks` or `texts`.
        key: Key of its entry.
        dataset: Repository of the dataset.
        revision: Branch, tag or commit.
        commit: Commit that the revision is pinned to; None for a local folder.
    """

    section: str
    key: str
    dataset: str
    revision: str
    commit: str | None


def _pins(lock: Mapping[str, Any]) -> Iterator[Pin]:
    """Yield each pinned dataset. The entry of a task gives a revision only if it is not `main`."""
    for key, text in lock["texts"].items():
        yield Pin("texts", key, text.get("dataset", ""), text.get("revision", "main"), text.get("commit"))
    for key, task in lock["tasks"].items():
        for dataset, commit in task["commits"].items():
            yield Pin("tasks", key, dataset, task.get("revisions", {}).get(dataset, "main"), commit)


def read_staged(path: Path) -> dict[str, Any]:
    """Read the source of a staged text from its metadata; empty if there is none."""
    metadata = pq.read_schema(path).metadata or {}
    source: dict[str, Any] = json.loads(metadata.get(STAGED, b"{}"))
    return source


def write_lock(path: Path) -> None:
    """Update the lock file with everything that is staged beside it, for this study and for others.

    Entries whose files no longer exist are kept. If the checksum of a file differs from the locked one of the same
    commit, a warning is logged.

    Args:
        path: The lock file; `models/*/staged.json`, `datasets/*.json` and `texts/*.parquet` beside it are read.

    Raises:
        UserError: If the existing file is not a lock file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two studies that stage at once must not lose each other's entries.
    with locked(path.with_name(f".{path.name}.lock")):
        lock = read_lock(path)
        for section, key, entry in _staged(path.parent):
            _warn_about_changes(path, key, lock[section].get(key), entry)
            lock[section][key] = entry
        with atomic_file(path) as temporary:
            temporary.write_text(yaml.safe_dump(lock, sort_keys=True, allow_unicode=True), encoding="utf-8")


def _staged(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the section, key and entry of each staged model, task and text."""
    for file in sorted(folder.glob("models/*/staged.json")):
        staged = read_json(file)
        key = f"{staged['repository']}@{staged['revision']}"
        yield "models", key, {"commit": staged["commit"], "files": staged["files"]}
    for file in sorted(folder.glob("datasets/*.json")):
        staged = read_json(file)
        yield "tasks", staged["task"], {name: value for name, value in staged.items() if name != "task"}
    for file in sorted(folder.glob("texts/*.parquet")):
        yield "texts", file.stem, {**read_staged(file), "sha256": sha256_of(file)}


def _warn_about_changes(path: Path, key: str, pinned: Mapping[str, Any] | None, staged: Mapping[str, Any]) -> None:
    """Log a warning for each file whose checksum differs from the locked one of the same commit."""
    commits = ("commit", "commits")
    if pinned is None or any(pinned.get(name) != staged.get(name) for name in commits):
        return
    before, now = _checksums(key, pinned), _checksums(key, staged)
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            logger.warning(
                "%s: %s: the SHA-256 of %s was %s..., now it is %s..., at the same commit: it was changed, or written "
                "by other versions of the libraries", path, key, name, before[name][:12], now[name][:12],
            )  # fmt: skip


def _checksums(key: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file of an entry."""
    if "sha256" in entry:
        return {key: entry["sha256"]}
    return {name: file["sha256"] if isinstance(file, dict) else file for name, file in entry["files"].items()}
