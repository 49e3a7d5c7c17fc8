"""What a result was made from: resolved settings and versions of the libraries that decide its numbers.

Imports no torch, so that a job can find out that its work is done already without loading anything.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from espalier import versions
from espalier.files import sha256_of_json

LIBRARIES = ("torch", "transformers", "lm-eval", "tokenizers", "numpy")


def make_recipe(**settings: Any) -> dict[str, Any]:
    """Join settings with the versions of the installed libraries; a missing library is null."""
    return {"settings": settings, "versions": {name: _version(name) for name in LIBRARIES}}


def evaluation_recipe(
    manifest: dict[str, Any],
    plan: dict[str, Any] | None,
    *,
    protocol: dict[str, Any],
    requests: str,
    dtype: str,
    adapter: str | None = None,
) -> dict[str, Any]:
    """Return the recipe of an evaluation.

    Args:
        manifest: Manifest of the model.
        plan: Content of `plan.json`; None for the unpruned model. Only what it keeps counts, not how it came about.
        protocol: Evaluation protocol.
        requests: SHA-256 of the tokenised requests.
        dtype: Type of the weights.
        adapter: Fingerprint of the adapter that is merged; None where there is none, which leaves the recipe as it is.
    """
    return make_recipe(
        version=versions.EVALUATE,
        weights=sha256_of_json(manifest["files"]),
        plan=plan and sha256_of_json(plan["layers"]),
        protocol=protocol,
        requests=requests,
        dtype=dtype,
        **({} if adapter is None else {"adapter": adapter}),
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
