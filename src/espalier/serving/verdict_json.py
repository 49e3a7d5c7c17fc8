"""Serving verdicts of experiments as JSON values, for `structures/{experiment}.json` and the analysis files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from espalier.analysis.message_json import reason_fields, to_json, to_json_list
from espalier.analysis.selection import to_int
from espalier.messages.catalogue import Message, Value
from espalier.models.sizes import ModelSizes
from espalier.serving.verdict import (
    KeptCounts,
    ModelProperties,
    Verdict,
    all_verdicts,
    layers_in_words,
    rounding_costs,
    width_recommendation,
)


def serving_verdicts(
    layers: pd.DataFrame, model: str, experiment: str, manifest: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return which targets load the pruned model of one experiment.

    Args:
        layers: The layers table.
        model: Name of the model.
        experiment: Name of the experiment.
        manifest: Manifest of the model; None for an imported model.

    Returns:
        A mapping with these keys. `targets`: a list with one mapping per target (`target`, `basis`, `verdict`,
        `multiple_of`, the layer lists `rounded`, `attention_stubs`, `mlp_stubs` and `left_out`, and the messages
        `said`). `stock`: whether the plan `has_shape`, a stock one, and the messages `said` on what is in the way.
        `rounding`: the fields of each `RoundingCost`. `advice`: a message. `removed_param_fraction`: the achieved
        fraction. `reason` and `why`: null. If the manifest or the kept counts are not known, `reason` and
        `why` give the reason, the lists are empty, and `advice` and `removed_param_fraction` are None.
    """
    no_verdicts: dict[str, Any] = {
        "removed_param_fraction": None, "targets": [], "stock": None, "rounding": [], "advice": None,
    }  # fmt: skip
    if manifest is None:
        return no_verdicts | reason_fields(Message("no_structure"))
    properties = ModelProperties.from_manifest(manifest)
    if properties is None:
        return no_verdicts | reason_fields(Message("old_manifest"))
    rows = layers[(layers["model"] == model) & (layers["experiment"] == experiment)].sort_values("layer")
    counts = rows[["kept_kv_groups", "kept_mlp_channels"]]
    removed = rows[(rows["params_before"] > 0) & (rows["params_after"] == 0)] if "params_after" in rows else rows[:0]
    if counts.empty or counts.isna().to_numpy().any():
        return no_verdicts | reason_fields(Message("no_plan"))
    structure = ModelSizes.from_dict(manifest["structure"])
    kv_groups, channels = (tuple(int(value) for value in counts[column]) for column in counts)
    experts: tuple[int | None, ...] = ()
    if structure.has_experts and "kept_experts" in rows:
        experts = tuple(to_int(value) for value in rows["kept_experts"])
    kept = KeptCounts(kv_groups, channels, tuple(int(layer) for layer in removed["layer"]), experts)
    return {
        "removed_param_fraction": 1 - kept.n_params(structure) / structure.total_params,
        "targets": [_verdict_json(verdict) for verdict in all_verdicts(kept, structure, properties)],
        "stock": _stock_json(kept, properties),
        "rounding": [asdict(cost) for cost in rounding_costs(kept, structure)],
        "advice": to_json(width_recommendation(kept, structure)),
        **reason_fields(None),
    }


def serving_verdicts_of_best(
    analysis: Mapping[str, Any], layers: pd.DataFrame, manifest: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return `serving_verdicts` of the best experiment of each pruning ratio, by experiment name.

    Args:
        analysis: Analysis of one model.
        layers: The layers table.
        manifest: Manifest of the model; None for an imported model.
    """
    best = (content["best"] for content in analysis["by_ratio"].values())
    names = [experiment["experiment"] for experiment in best if experiment is not None]
    return {name: serving_verdicts(layers, analysis["model"], name, manifest) for name in names}


def _stock_json(kept: KeptCounts, properties: ModelProperties) -> dict[str, Any]:
    messages = []
    for obstacle in kept.stock_obstacles(properties):
        sizes = "; ".join(f"{size}: {layers}" for size, layers in obstacle.sizes.items())
        values: dict[str, Value] = {
            "n": len(obstacle.sizes),
            "sizes": sizes,
            "layers": layers_in_words(next(iter(obstacle.sizes.values()))),
        }
        messages.append(Message(f"stock_{obstacle.kind}", values))
    return {"has_shape": not messages, "said": to_json_list(messages)}


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "target": verdict.target.name,
        "basis": verdict.target.basis,
        "verdict": verdict.code,
        "multiple_of": verdict.target.multiple_of,
        "rounded": verdict.rounded,
        "attention_stubs": verdict.attention_stubs,
        "mlp_stubs": verdict.mlp_stubs,
        "left_out": verdict.left_out,
        "said": to_json_list(verdict.messages),
    }
