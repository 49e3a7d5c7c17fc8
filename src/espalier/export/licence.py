"""The licence of a base model, as stated in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
_KEYS = ("license", "license_name", "license_link")


def licence_of(folder: Path) -> dict[str, Any]:
    """Read the licence from the metadata of README.md, and list the licence files.

    Returns:
        `license`, `license_name` and `license_link`, as far as README.md has them, and `files`, a list of file names.
    """
    return {**_said(folder / "README.md"), "files": [path.name for path in licence_files(folder)]}


def licence_files(folder: Path) -> list[Path]:
    """Return the licence texts and notices in a folder, sorted."""
    return sorted(path for pattern in _FILES for path in folder.glob(pattern) if path.is_file())


def copy_licences(folder: Path, to: Path) -> None:
    """Copy licence texts and notices to another folder. Most licences require this of redistributed models."""
    for path in licence_files(folder):
        shutil.copyfile(path, to / path.name)


def _said(readme: Path) -> dict[str, str]:
    if not readme.is_file():
        return {}
    head, _, rest = readme.read_text(encoding="utf-8", errors="replace").partition("\n")
    if head.strip() != "---":
        return {}
    try:
        values = yaml.safe_load(rest.partition("\n---")[0])
    except (yaml.YAMLError, ValueError, RecursionError):  # an impossible date is a ValueError
        return {}
    if not isinstance(values, dict):
        return {}
    return {key: values[key] for key in _KEYS if isinstance(values.get(key), str)}
