"""Recipes: what a result was made from, stored with it and compared with what is configured by whoever reads it.

A recipe has resolved settings and the versions of the libraries that decide its numbers. Settings are compared,
versions only recorded. Imports no torch, so that a job can find out that its work is done without loading anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier import versions
from espalier.errors import UserError
from espalier.files import read_json, read_table, sha256_of, sha256_of_json

if TYPE_CHECKING:
    import pandas as pd

LIBRARIES = ("torch", "transformers", "lm-eval", "tokenizers", "numpy")
SAMPLES_SHA256 = "samples_sha256"
"""Key of `metrics.json`: the SHA-256 of the `samples.parquet` that belongs to it."""
logger = logging.getLogger(__name__)


def make_recipe(**settings: Any) -> dict[str, Any]:
    """Join settings with the versions of the installed libraries; a missing library is null."""
    return {"settings": settings, "versions": {name: _version(name) for name in LIBRARIES}}


def weights_of(manifest: Mapping[str, Any]) -> str:
    """Return what stands for the weights of a model in recipes: a hash of the checksums of all its files."""
    return sha256_of_json(manifest["files"])


def plan_of(plan: Mapping[str, Any]) -> str:
    """Return what stands for a plan in recipes: a hash of what it keeps, not of how it came about."""
    return sha256_of_json(plan["layers"])


def plan_settings(manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a plan.

    Args:
        manifest: Manifest of the model.
        settings: All settings of the plan, as configured.
    """
    return {"version": versions.PLAN, "settings": dict(settings), "weights": weights_of(manifest)}


def evaluation_settings(
    manifest: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    *,
    protocol: Mapping[str, Any],
    requests: str | None,
    dtype: str,
    adapter: str | None = None,
) -> dict[str, Any]:
    """Return the settings of an evaluation.

    Args:
        manifest: Manifest of the model.
        plan: Content of `plan.json`; None for the unpruned model.
        protocol: Evaluation protocol.
        requests: SHA-256 of the tokenised requests; None leaves it out.
        dtype: Type of the weights.
        adapter: Fingerprint of the adapter that is merged; None where there is none, which leaves the recipe as it is.
    """
    return {
        "version": versions.EVALUATE,
        "weights": weights_of(manifest),
        "plan": None if plan is None else plan_of(plan),
        "protocol": dict(protocol),
        **({} if requests is None else {"requests": requests}),
        "dtype": dtype,
        **({} if adapter is None else {"adapter": adapter}),
    }


def evaluation_recipe(
    manifest: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    *,
    protocol: Mapping[str, Any],
    requests: str,
    dtype: str,
    adapter: str | None = None,
) -> dict[str, Any]:
    """Return the recipe of an evaluation; arguments as `evaluation_settings`."""
    return make_recipe(
        **evaluation_settings(manifest, plan, protocol=protocol, requests=requests, dtype=dtype, adapter=adapter)
    )


def recovery_settings(
    manifest: Mapping[str, Any], plan: Mapping[str, Any], *, recovery: Mapping[str, Any], text: str | None
) -> dict[str, Any]:
    """Return the settings of a recovery.

    Args:
        manifest: Manifest of the model.
        plan: Content of `plan.json`.
        recovery: All that decides the adapters, as configured.
        text: SHA-256 of the text; None leaves it out.
    """
    return {
        "version": versions.RECOVER,
        "recovery": dict(recovery),
        "weights": weights_of(manifest),
        "plan": plan_of(plan),
        **({} if text is None else {"text": text}),
    }


def inference_settings(manifest: Mapping[str, Any], plan: Mapping[str, Any], *, dtype: str) -> dict[str, Any]:
    """Return the settings of a measurement of inference."""
    return {
        "version": versions.MEASURE_INFERENCE,
        "weights": weights_of(manifest),
        "plan": plan_of(plan),
        "dtype": dtype,
    }


def requests_of(path: str | Path) -> str | None:
    """Return what stands for tokenised requests in recipes, the SHA-256 of their file; None where it is gone.

    Requests may be deleted once all is evaluated; then results cannot be compared with them.
    """
    if Path(path).is_file():
        return sha256_of(path)
    logger.info("%s: is gone, so results were not compared with it", path)
    return None


def settings_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings in the recipe of a result; those of a plan lie at the top of its recipe."""
    recipe: Mapping[str, Any] = content["recipe"]
    return recipe if "weights" in recipe else recipe.get("settings", {})


def difference(
    content: Mapping[str, Any], *, model: str, experiment: str, settings: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
    """Compare a result with what is configured.

    Args:
        content: Content of a result file: `model`, `experiment` and `recipe`.
        model: Name of the model that it should be of.
        experiment: Name of the experiment.
        settings: Settings that it should have been made by; others in its recipe are not compared. An adapter is
            compared even where it is left out: a result of a recovered model is none of the pruned one.

    Returns:
        What differs, the value found and the one configured; None where nothing does.
    """
    for name, wanted in (("model", model), ("experiment", experiment)):
        if content.get(name) != wanted:
            return name, content.get(name), wanted
    found = settings_of(content)
    for name, wanted in {"adapter": None, **settings}.items():
        if different := _first_difference(name, found.get(name), wanted):
            return different
    return None


def check_made_from(
    path: str | Path,
    content: Mapping[str, Any],
    *,
    model: str,
    experiment: str,
    settings: Mapping[str, Any],
    remedy: str,
) -> None:
    """Refuse a result that is not the configured one, so that a copied or exchanged file is found.

    Args:
        path: Its file, for the message.
        content: Its content.
        model: As `difference`.
        experiment: As `difference`.
        settings: As `difference`.
        remedy: What makes the configured result, for the message.

    Raises:
        UserError: With both values.
    """
    different = difference(content, model=model, experiment=experiment, settings=settings)
    if different:
        name, found, wanted = different
        raise UserError(
            f"{path}: was made with another {name} ({_show(found)}) than configured ({_show(wanted)}); {remedy}, or "
            "restore the file"
        )


def read_samples(path: str | Path) -> pd.DataFrame:
    """Read the results of single documents that stand beside a `metrics.json`.

    Raises:
        UserError: If the file is corrupt, or is not the one that the metrics were computed with.
    """
    metrics = Path(path).with_name("metrics.json")
    expected = read_json(metrics).get(SAMPLES_SHA256) if metrics.is_file() else None
    if expected is None:
        logger.info("%s: %s has no checksum of it, so the two were not compared", path, metrics.name)
    elif (found := sha256_of(path)) != expected:
        raise UserError(
            f"{path}: has checksum {found[:12]}, but {metrics} was computed with {expected[:12]}; delete both and run "
            "again, or restore the file"
        )
    return read_table(path)


def _first_difference(name: str, found: Any, wanted: Any) -> tuple[str, Any, Any] | None:
    """Find the first value that differs, as deep as both are mappings: `protocol.stride`, 16, 32."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = [*wanted, *(key for key in found if key not in wanted)]
        pairs = (_first_difference(f"{name}.{key}", found.get(key), wanted.get(key)) for key in keys)
        return next((pair for pair in pairs if pair), None)
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        return None if list(found) == list(wanted) else (name, found, wanted)
    return None if found == wanted else (name, found, wanted)


def _show(value: Any) -> str:
    """Show a value in a message; checksums by their beginning."""
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    text = "none" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
