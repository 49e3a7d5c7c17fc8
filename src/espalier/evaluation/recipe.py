"""What a result was made from: resolved settings and versions of the libraries that decide its numbers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("torch", "transformers", "lm-eval", "tokenizers", "numpy")


def make_recipe(**settings: Any) -> dict[str, Any]:
    """Join settings with the versions of the installed libraries; a missing library is null."""
    return {"settings": settings, "versions": {name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
