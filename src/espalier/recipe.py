"""Recipes: the settings and library versions that a result was made from.

A recipe is stored in the result file. Code that reads the result compares the settings in the recipe with the config.
The versions of the libraries that affect the numbers are recorded but not compared. This module does not import torch,
so that a job whose result exists already can end without loading it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from espalier import versions
from espalier.errors import UserError
from espalier.files import read_json, read_table, sha256_of, sha256_of_json

if TYPE_CHECKING:
    import pandas as pd

LIBRARIES = ("torch", "transformers", "lm-eval", "tokenizers", "numpy")
SAMPLES_SHA256 = "samples_sha256"
"""Key of `metrics.json` that holds the SHA-256 of the `samples.parquet` beside it."""
logger = logging.getLogger(__name__)


def make_recipe(**settings: Any) -> dict[str, Any]:
    """Return a recipe: the settings and the versions of the installed libraries (None for a missing library)."""
    return {"settings": settings, "versions": {name: _library_version(name) for name in LIBRARIES}}


def weights_hash(manifest: Mapping[str, Any]) -> str:
    """Return the identifier of a model's weights in recipes: a hash of the sizes and checksums of its files."""
    return sha256_of_json(manifest["files"])


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Return the identifier of a plan in recipes: a hash of the groups that it keeps, not of how they were chosen."""
    return sha256_of_json(plan["layers"])


def plan_settings(manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a plan. It has no library versions.

    Args:
        manifest: Manifest of the model.
        settings: All settings of the plan, as configured.
    """
    return {"version": versions.PLAN, "settings": dict(settings), "weights": weights_hash(manifest)}


def evaluation_settings(
    manifest: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    *,
    protocol: Mapping[str, Any],
    requests: str | None,
    dtype: str,
    adapter: str | None = None,
    trained_weights: str | None = None,
) -> dict[str, Any]:
    """Return the settings in the recipe of an evaluation.

    Args:
        manifest: Manifest of the model.
        plan: Content of `plan.json`; None for the unpruned model.
        protocol: Evaluation protocol.
        requests: SHA-256 of the tokenised requests; None leaves the key out.
        dtype: Dtype of the weights.
        adapter: Fingerprint of the merged adapter; None, for a model without adapter, leaves the key out.
        trained_weights: Fingerprint of the weights of a model that was fine-tuned whole; None leaves the key out.
    """
    return {
        "version": versions.EVALUATE,
        "weights": weights_hash(manifest),
        "plan": None if plan is None else plan_hash(plan),
        "protocol": dict(protocol),
        **({} if requests is None else {"requests": requests}),
        "dtype": dtype,
        **({} if adapter is None else {"adapter": adapter}),
        **({} if trained_weights is None else {"trained_weights": trained_weights}),
    }


def evaluation_recipe(
    manifest: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    *,
    protocol: Mapping[str, Any],
    requests: str,
    dtype: str,
    adapter: str | None = None,
    trained_weights: str | None = None,
) -> dict[str, Any]:
    """Return the recipe of an evaluation; `evaluation_settings` describes the arguments."""
    settings = evaluation_settings(
        manifest, plan, protocol=protocol, requests=requests, dtype=dtype, adapter=adapter,
        trained_weights=trained_weights,
    )  # fmt: skip
    return make_recipe(**settings)


def recovery_settings(
    manifest: Mapping[str, Any], plan: Mapping[str, Any], *, recovery: Mapping[str, Any], text: str | None
) -> dict[str, Any]:
    """Return the settings in the recipe of a recovery.

    Args:
        manifest: Manifest of the model.
        plan: Content of `plan.json`.
        recovery: All configured settings that affect the trained model.
        text: SHA-256 of the training text; None leaves the key out.
    """
    return {
        "version": versions.RECOVER_FULL if recovery.get("method") == "full" else versions.RECOVER,
        "recovery": dict(recovery),
        "weights": weights_hash(manifest),
        "plan": plan_hash(plan),
        **({} if text is None else {"text": text}),
    }


def inference_settings(manifest: Mapping[str, Any], plan: Mapping[str, Any], *, dtype: str) -> dict[str, Any]:
    """Return the settings in the recipe of an inference measurement."""
    return {
        "version": versions.MEASURE_INFERENCE,
        "weights": weights_hash(manifest),
        "plan": plan_hash(plan),
        "dtype": dtype,
    }


def requests_sha256(path: str | Path) -> str | None:
    """Return the SHA-256 of a file of tokenised requests, or None if the file does not exist.

    Requests may be deleted after all evaluations are done. Results can then not be compared with them.
    """
    if Path(path).is_file():
        return sha256_of(path)
    logger.info("%s: is gone, so results were not compared with it", path)
    return None


def recipe_settings(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings in the recipe of a result; the recipe of a plan has them at its top level."""
    recipe: Mapping[str, Any] = content["recipe"]
    return recipe if "weights" in recipe else recipe.get("settings", {})


class Difference(NamedTuple):
    """A setting in which a result differs from the config.

    Attributes:
        setting: Its path in the recipe, such as `protocol.stride`; or `model` or `experiment`.
        found: Value in the result.
        wanted: Configured value.
    """

    setting: str
    found: Any
    wanted: Any


def first_difference(
    content: Mapping[str, Any], *, model: str, experiment: str, settings: Mapping[str, Any]
) -> Difference | None:
    """Compare a result with the config and return the first difference, or None if nothing differs.

    Args:
        content: Content of a result file: `model`, `experiment` and `recipe`.
        model: Expected name of the model.
        experiment: Expected name of the experiment.
        settings: Expected settings. Further settings in the recipe are not compared, except `adapter` and
            `trained_weights`: if `settings` has none, the recipe must not have one either, since a recovered model is
            not the pruned model.
    """
    for name, wanted in (("model", model), ("experiment", experiment)):
        if content.get(name) != wanted:
            return Difference(name, content.get(name), wanted)
    found = recipe_settings(content)
    for name, wanted in {"adapter": None, "trained_weights": None, **settings}.items():
        if difference := _compare_values(name, found.get(name), wanted):
            return difference
    return None


def check_settings(
    path: str | Path,
    content: Mapping[str, Any],
    *,
    model: str,
    experiment: str,
    settings: Mapping[str, Any],
    remedy: str,
) -> None:
    """Check that a result was made with the configured settings, to detect copied or exchanged files.

    Args:
        path: File of the result, for the message.
        content: Content of the file.
        model: Expected name of the model.
        experiment: Expected name of the experiment.
        settings: Expected settings (see `first_difference`).
        remedy: How to make the configured result, for the message.

    Raises:
        UserError: If a setting differs. The message has both values.
    """
    difference = first_difference(content, model=model, experiment=experiment, settings=settings)
    if difference:
        found, wanted = _format_value(difference.found), _format_value(difference.wanted)
        raise UserError(
            f"{path}: was made with another {difference.setting} ({found}) than configured ({wanted}); {remedy}, or "
            "restore the file"
        )


def read_samples(path: str | Path) -> pd.DataFrame:
    """Read a `samples.parquet` and check that the `metrics.json` beside it was computed from it.

    The check is skipped if `metrics.json` does not exist or has no checksum of the samples.

    Raises:
        UserError: If the file is corrupt, or the metrics were computed from another file.
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


def _compare_values(setting: str, found: Any, wanted: Any) -> Difference | None:
    """Return the first difference in two values, which may be nested; None if they are equal."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = [*wanted, *(key for key in found if key not in wanted)]
        differences = (_compare_values(f"{setting}.{key}", found.get(key), wanted.get(key)) for key in keys)
        return next((difference for difference in differences if difference), None)
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        found, wanted = list(found), list(wanted)
    return None if found == wanted else Difference(setting, found, wanted)


def _format_value(value: Any) -> str:
    """Format a value for a message; checksums and long texts are cut."""
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    text = "none" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


@cache
def _library_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
