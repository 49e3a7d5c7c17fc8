"""Consolidate the results of recovered experiments into one table. Imports no torch.

A stale result is refused: training and evaluation must have been made with the configured settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from espalier.evaluation.protocol import mean_accuracy
from espalier.files import read_json
from espalier.recipe import check_settings, evaluation_settings, recovery_settings, requests_sha256

_INTEGER_COLUMNS = ("n_tokens", "n_trainable", "peak_memory_bytes")


@dataclass(frozen=True)
class RecoveredEntry:
    """Names and files of a recovered experiment (`RecoveryResults.entries`).

    Attributes:
        model: Name of its model.
        experiment: Name of the experiment.
        metrics: `metrics.json` of its evaluation after recovery.
        training: `training.json` of its recovery.
        samples: `samples.parquet` beside its metrics.
        manifest: Manifest of its model.
        plan: Its `plan.json`.
        requests: Tokenised requests of its model.
    """

    model: str
    experiment: str
    metrics: str
    training: str
    samples: str
    manifest: str
    plan: str
    requests: str


def recovered_rows(
    entries: Sequence[RecoveredEntry],
    experiments: pd.DataFrame,
    texts: Sequence[str],
    *,
    configured: Mapping[str, Any],
    missing: Mapping[str, str | None],
) -> list[dict[str, Any]]:
    """Read the results of all recovered experiments and return the rows of the table.

    Args:
        entries: Names and files of each recovered experiment.
        experiments: The experiments table, which has the results before recovery.
        texts: Names of the perplexity texts.
        configured: `settings` of the recovery, `protocol` and `dtype` of the evaluation.
        missing: Paths of `metrics.json` files that may be missing. The value is the reason why the recovery failed, or
            None if the reason is not known.

    Raises:
        UserError: If a result was made with other settings than the configured ones.
    """
    before = {(row["model"], row["experiment"]): row for row in experiments.to_dict("records")}
    return [
        _missing_row(before[entry.model, entry.experiment], texts, missing[entry.metrics])
        if entry.metrics in missing
        else _recovered_row(entry, before[entry.model, entry.experiment], texts, configured)
        for entry in entries
    ]


def recovered_table(rows: Iterable[Mapping[str, Any]], texts: Sequence[str]) -> pd.DataFrame:
    """Return the table of recovered experiments: rows of `recovered_rows`, with the column types set."""
    numbers = ["acc_mean_before", "acc_mean_after", *(f"ppl_{when}_{t}" for when in ("before", "after") for t in texts)]
    names = ("model", "experiment", "method", "pruning_ratio", "acc_mean_rule")
    columns = [
        *names,
        *numbers,
        "n_tokens",
        "n_trainable",
        "trained",
        "distilled",
        "seconds",
        "peak_memory_bytes",
        "status",
        "note",
    ]
    types = (
        dict.fromkeys(columns, "str")
        | {"distilled": "boolean"}
        | dict.fromkeys(numbers, "float64")
        | dict.fromkeys(_INTEGER_COLUMNS, "Int64")
    )
    return pd.DataFrame(list(rows), columns=columns).astype(types | {"pruning_ratio": "float64", "seconds": "float64"})


def check_configured(
    entry: RecoveredEntry, metrics: Mapping[str, Any], training: Mapping[str, Any], configured: Mapping[str, Any]
) -> None:
    """Check that results were made with the configured settings.

    Args:
        entry: Names and files of the experiment.
        metrics: Content of `metrics.json`.
        training: Content of `training.json`.
        configured: `settings` of the recovery, `protocol` and `dtype` of the evaluation.

    Raises:
        UserError: If a setting differs. The message names the model, the experiment and the setting.
    """
    names = {"model": entry.model, "experiment": entry.experiment}
    manifest, plan = read_json(entry.manifest), read_json(entry.plan)
    remedy = "delete it and run again"
    made = recovery_settings(manifest, plan, recovery=configured["settings"], text=None)
    check_settings(entry.training, training, **names, settings=made, remedy=remedy)
    evaluated = evaluation_settings(
        manifest, plan, protocol=configured["protocol"], requests=requests_sha256(entry.requests),
        dtype=configured["dtype"], adapter=training.get("adapter"), trained_weights=training.get("trained_weights"),
    )  # fmt: skip
    check_settings(entry.metrics, metrics, **names, settings=evaluated, remedy=remedy)


def _missing_row(before: Mapping[Any, Any], texts: Sequence[str], reason: str | None) -> dict[str, Any]:
    return _before(before, texts) | {"status": "failed" if reason else "missing", "note": reason}


def _recovered_row(
    entry: RecoveredEntry, before: Mapping[Any, Any], texts: Sequence[str], configured: Mapping[str, Any]
) -> dict[str, Any]:
    metrics, training = read_json(entry.metrics), read_json(entry.training)
    check_configured(entry, metrics, training, configured)
    row = _before(before, texts)
    row |= {"acc_mean_after": mean_accuracy(metrics["tasks"], str(before["acc_mean_rule"]))}
    row |= {f"ppl_after_{text}": metrics["perplexity"][text]["value"] for text in texts}
    row |= {key: training[key] for key in (*_INTEGER_COLUMNS, "seconds")}
    settings = training["recipe"]["settings"]["recovery"]
    row |= {"trained": settings.get("method", "lora"), "distilled": settings.get("distillation") is not None}
    return row | {"status": "ok", "note": None}


def _before(before: Mapping[Any, Any], texts: Sequence[str]) -> dict[str, Any]:
    row = {key: before[key] for key in ("model", "experiment", "method", "pruning_ratio", "acc_mean_rule")}
    # An experiment that a race stopped has answered some of the documents, and after recovery it answers all.
    is_stopped = pd.notna(before.get("race_stopped_by"))
    return (
        row
        | {"acc_mean_before": None if is_stopped else before["acc_mean"]}
        | {f"ppl_before_{t}": before[f"ppl_{t}"] for t in texts}
    )
