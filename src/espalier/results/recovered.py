"""The table of recovered experiments. Frames in, frames out; no torch.

A result enters only if adapter and evaluation were made by the settings that are configured now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from espalier.evaluation.protocol import mean_accuracy
from espalier.files import read_json
from espalier.recipe import check_made_from, evaluation_settings, recovery_settings, requests_of

Entry = Mapping[str, Any]
_WHOLE = ("n_tokens", "n_trainable", "peak_memory_bytes")


def recovered_rows(
    entries: Sequence[Entry],
    experiments: pd.DataFrame,
    texts: Sequence[str],
    *,
    configured: Mapping[str, Any],
    missing: Mapping[str, str | None],
) -> list[dict[str, Any]]:
    """Read every recovered experiment.

    Args:
        entries: As `Recoveries.entries`: model, experiment, and where its results and what they were made from lie.
        experiments: The experiments table, which has the results before.
        texts: Names of the perplexity texts.
        configured: `settings` of the recovery, `protocol` and `dtype` of the evaluation.
        missing: Files of metrics that may be missing, each with why its experiment failed, if it did.

    Raises:
        UserError: If a result was made by other settings than those configured.
    """
    before = {(row["model"], row["experiment"]): row for row in experiments.to_dict("records")}
    return [
        _missing_row(before[entry["model"], entry["experiment"]], texts, missing[entry["metrics"]])
        if entry["metrics"] in missing
        else _row(entry, before[entry["model"], entry["experiment"]], texts, configured)
        for entry in entries
    ]


def recovered_table(rows: Iterable[Mapping[str, Any]], texts: Sequence[str]) -> pd.DataFrame:
    """Make the table."""
    numbers = ["acc_mean_before", "acc_mean_after", *(f"ppl_{when}_{t}" for when in ("before", "after") for t in texts)]
    names = ("model", "experiment", "method", "pruning_ratio", "acc_mean_rule")
    columns = [*names, *numbers, "n_tokens", "n_trainable", "seconds", "peak_memory_bytes", "status", "note"]
    types = dict.fromkeys(columns, "str") | dict.fromkeys(numbers, "float64") | dict.fromkeys(_WHOLE, "Int64")
    return pd.DataFrame(list(rows), columns=columns).astype(types | {"pruning_ratio": "float64", "seconds": "float64"})


def check_configured(
    entry: Entry, metrics: Mapping[str, Any], training: Mapping[str, Any], configured: Mapping[str, Any]
) -> None:
    """Refuse results that were made by other settings than those configured.

    Raises:
        UserError: Naming model, experiment, and what differs.
    """
    names = {"model": entry["model"], "experiment": entry["experiment"]}
    manifest, plan = read_json(entry["manifest"]), read_json(entry["plan"])
    remedy = "run `snakemake recovered` again"
    made = recovery_settings(manifest, plan, recovery=configured["settings"], text=None)
    check_made_from(entry["training"], training, **names, settings=made, remedy=remedy)
    evaluated = evaluation_settings(
        manifest, plan, protocol=configured["protocol"], requests=requests_of(entry["requests"]),
        dtype=configured["dtype"], adapter=training["adapter"],
    )  # fmt: skip
    check_made_from(entry["metrics"], metrics, **names, settings=evaluated, remedy=remedy)


def _missing_row(before: Mapping[Any, Any], texts: Sequence[str], reason: str | None) -> dict[str, Any]:
    return _before(before, texts) | {"status": "failed" if reason else "missing", "note": reason}


def _row(
    entry: Entry, before: Mapping[Any, Any], texts: Sequence[str], configured: Mapping[str, Any]
) -> dict[str, Any]:
    metrics, training = read_json(entry["metrics"]), read_json(entry["training"])
    check_configured(entry, metrics, training, configured)
    row = _before(before, texts)
    row |= {"acc_mean_after": mean_accuracy(metrics["tasks"], str(before["acc_mean_rule"]))}
    row |= {f"ppl_after_{text}": metrics["perplexity"][text]["value"] for text in texts}
    row |= {key: training[key] for key in (*_WHOLE, "seconds")}
    return row | {"status": "ok", "note": None}


def _before(before: Mapping[Any, Any], texts: Sequence[str]) -> dict[str, Any]:
    row = {key: before[key] for key in ("model", "experiment", "method", "pruning_ratio", "acc_mean_rule")}
    return row | {"acc_mean_before": before["acc_mean"]} | {f"ppl_before_{t}": before[f"ppl_{t}"] for t in texts}
