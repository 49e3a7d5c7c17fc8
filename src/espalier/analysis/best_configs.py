"""Tables of the best configurations, from the analysis of the study. Imports no scipy, so report jobs start fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def best_configs_table(summary: Mapping[str, Any]) -> pd.DataFrame:
    """Build the table of best configurations (a row per model and pruning ratio) from the result of `analyse_study`."""
    rows = [row for content in summary["by_ratio"].values() for row in content["best_configs"]]
    frame = pd.DataFrame(
        [_with_interval_columns(row) for row in rows],
        columns=[*_BEST_COLUMNS, "acc_mean_rule", "n_in_simultaneous_set"],
    )
    return frame.astype(dict.fromkeys(_WHOLE_COLUMNS, "Int64"))


def cross_model_comparison(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise the result of `analyse_study`: best method, accuracy and perplexity of each model."""

    def summarise(content: Mapping[str, Any]) -> dict[str, Any]:
        keys = {"best_method": "method", "best_acc": "acc_mean", "best_ppl": "ppl", "n_valid": "n_valid"}
        return {
            "pruning_ratio": content["pruning_ratio"],
            "models": {
                row["model"]: {key: row[column] for key, column in keys.items()} for row in content["best_configs"]
            },
            "overall_best": content["overall_best"],
        }

    return {**summarise(summary), "by_ratio": {p: summarise(content) for p, content in summary["by_ratio"].items()}}


_BEST_COLUMNS = (
    "model", "family", "kind", "pruning_ratio", "method", "experiment", "acc_mean", "ppl", "ppl_text", "taylor_seq_len",
    "taylor_num_samples", "baseline_acc_mean", "baseline_ppl", "acc_kept", "n_valid", "acc_mean_low", "acc_mean_high",
    "acc_kept_low", "acc_kept_high", "ppl_ratio", "n_in_set", "acc_mean_corrected", "n_params",
    "kv_cache_bytes_per_token", "flops_per_token",
)  # fmt: skip
_WHOLE_COLUMNS = (
    "taylor_seq_len", "taylor_num_samples", "n_valid", "n_in_set", "n_in_simultaneous_set", "n_params",
    "kv_cache_bytes_per_token", "flops_per_token",
)  # fmt: skip


def _with_interval_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Split each interval into two columns, `*_low` and `*_high`."""
    ends = {
        f"{name}_{end}": None if row[f"{name}_interval"] is None else row[f"{name}_interval"][number]
        for name in ("acc_mean", "acc_kept")
        for number, end in enumerate(("low", "high"))
    }
    return row | ends
