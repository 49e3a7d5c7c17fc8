"""What the folder of a base model says of its licence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
_KEYS = ("license", "license_name", "license_link")


def licence_of(folder: Path) -> dict[str, Any]:
    """Read the licence from the head of README.md, and which licence files there are.

    Returns:
        Those of `license`, `license_name`, `license_link` that the folder says, and `files`.
    """
    return {**_said(folder / "README.md"), "files": [path.name for path in licence_files(folder)]}


def licence_files(folder: Path) -> list[Path]:
    """Licence texts and notices of a folder."""
    return sorted(path for pattern in _FILES for path in folder.glob(pattern) if path.is_file())


def copy_licences(folder: Path, to: Path) -> None:
    """Copy licence texts and notices, which most licences ask to hand on."""
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
    except yaml.YAMLError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {key: values[key] for key in _KEYS if isinstance(values.get(key), str)}
