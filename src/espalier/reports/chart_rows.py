"""Rows for the figures and the table of experiments. The values are plain Python values; missing values are None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from espalier.analysis.selection import rows_of, to_float, to_int, to_str, valid_rows
from espalier.reports.sections.types import Content

Row = dict[str, Any]


def experiment_chart_rows(experiments: pd.DataFrame, analysis: Content, content: Content) -> list[Row]:
    """Return the valid experiments of one model at one pruning ratio, controls included, best first.

    Args:
        experiments: The experiments table.
        analysis: Analysis of the model.
        content: Its results at that ratio.
    """
    model = rows_of(experiments, analysis["model"])
    text = content["ppl_accuracy"]["text"]
    uncertainty = content["uncertainty"]["experiments"]
    costs = (analysis["costs"] or {}).get("experiments", {})
    rows = []
    for row in valid_rows(model.at(content["pruning_ratio"]), controls=True).to_dict("records"):
        name = str(row["experiment"])
        of_experiment = uncertainty.get(name, {})
        low, high = of_experiment.get("interval") or (None, None)
        rows.append(
            {
                "experiment": name,
                "method": str(row["method"]),
                "control": bool(row["control"]),
                "seq_len": to_int(row["taylor_seq_len"]),
                "samples": to_int(row["taylor_num_samples"]),
                "calibration": to_str(row["calibration"]),
                "ratio": float(row["pruning_ratio"]),
                "acc": float(row["acc_mean"]),
                "low": low,
                "high": high,
                "in_set": of_experiment.get("in_simultaneous_set"),
                "acc_kept": of_experiment.get("acc_kept"),
                "kept_interval": of_experiment.get("acc_kept_interval"),
                "ppl": to_float(row[f"ppl_{text}"]) if text else None,
                "extreme": to_int(row["extreme_pruning_layers"]),
                "n_params": to_int(row["n_params"]),
                "flops": costs.get(name, {}).get("flops_per_token"),
                "task_stderr": of_experiment.get("task_stderr") or {},
                "tasks": {task: float(row[f"acc_{task}"]) for task in model.tasks},
            }
        )
    return sorted(rows, key=lambda row: (-row["acc"], row["experiment"]))


def compared_chart_rows(content: Content, rows: list[Row]) -> list[Row]:
    """Return all experiments as they are compared, best first: after a race, on the documents that all answered.

    Args:
        content: Results of the model at a pruning ratio.
        rows: Its valid experiments (`experiment_chart_rows`), which are returned without a race.
    """
    common = (content.get("race") or {}).get("common")
    if not common:
        return rows
    known = {row["experiment"]: row for row in rows}
    return [
        {
            "experiment": name,
            "method": one["method"],
            "control": one["control"],
            "seq_len": one["taylor_seq_len"],
            "samples": one["taylor_num_samples"],
            "acc": one["acc_mean"],
            "low": one["interval"][0],
            "high": one["interval"][1],
            "in_set": known.get(name, {}).get("in_set"),
            "acc_kept": None,
            "ppl": known.get(name, {}).get("ppl"),
        }
        for name, one in common["experiments"].items()
    ]


def compared_content(content: Content) -> Content:
    """Return the results of a ratio with the unpruned model on the same documents as `compared_chart_rows`."""
    common = (content.get("race") or {}).get("common")
    if not common or content["baseline"] is None:
        return content
    if common["baseline"] is None:
        return {**content, "baseline": None}
    return {**content, "baseline": {**content["baseline"], "acc_mean": common["baseline"]}}


def layer_chart_rows(layers: pd.DataFrame, model: str) -> dict[str, list[Row]]:
    """Return the share of attention and MLP parameters that each layer keeps, by experiment.

    Args:
        layers: The layers table.
        model: Name of the model.
    """
    by_experiment: dict[str, list[Row]] = {}
    plans = layers[layers["model"] == model].sort_values(["experiment", "layer"], kind="stable")
    for row in plans.to_dict("records"):
        for block, width in (("attention", "kept_kv_groups"), ("mlp", "kept_mlp_channels")):
            before, after = int(row[f"{block}_before"]), int(row[f"{block}_after"])
            by_experiment.setdefault(str(row["experiment"]), []).append(
                {
                    "layer": int(row["layer"]),
                    "block": block,
                    "kept": after / before if before else None,
                    "width": to_int(row[width]),
                }
            )
    return by_experiment


@dataclass(frozen=True)
class PriorProfile:
    """The two priors of each decoder layer of a model, for one calibration setting.

    Attributes:
        calibration: Name of the calibration set.
        seq_len: Tokens per sequence.
        n_sequences: Number of sequences that the priors are averaged over.
        loss_increase: Increase of the loss without the layer, by layer.
        cosine_distance: Cosine distance between input and output of the layer, by layer.
    """

    calibration: str
    seq_len: int
    n_sequences: int
    loss_increase: Sequence[float]
    cosine_distance: Sequence[float]


def prior_profiles(tables: Sequence[tuple[str, int, int, pd.DataFrame]]) -> list[PriorProfile]:
    """Return the priors of whole layers over depth, at the largest sample count of each setting.

    Args:
        tables: Calibration set, sequence length, number of sequences that the priors at the largest count are averaged
            over, and table of priors of each pass (`priors/` of a study).
    """
    profiles = []
    for calibration, seq_len, n_sequences, table in tables:
        layers = table[(table["scope"] == "layer") & (table["n_samples"] == table["n_samples"].max())]
        layers = layers.sort_values("layer")
        if len(layers):
            values = [[float(value) for value in layers[name]] for name in ("loss_increase", "cosine_distance")]
            profiles.append(PriorProfile(calibration, seq_len, n_sequences, *values))
    return profiles
