"""Serving verdicts of experiments as JSON values, for `structures/{experiment}.json` and the analysis files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from espalier.analysis.message_json import reason_fields, to_json, to_json_list
from espalier.models.sizes import ModelSizes
from espalier.serving.verdict import Kept, ModelFacts, Verdict, advice, rounding_costs, verdicts
from espalier.statistics.messages import Message


def deployment_of(
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
        `said`). `rounding`: as returned by `rounding_costs`. `advice`: a message. `removed_param_fraction`: the
        achieved fraction. `reason` and `why`: null. If the manifest or the kept counts are not known, `reason` and
        `why` give the reason, the lists are empty, and `advice` and `removed_param_fraction` are None.
    """
    nothing: dict[str, Any] = {"removed_param_fraction": None, "targets": [], "rounding": [], "advice": None}
    if manifest is None:
        return nothing | reason_fields(Message("no_structure"))
    facts = ModelFacts.from_manifest(manifest)
    if facts is None:
        return nothing | reason_fields(Message("old_manifest"))
    rows = layers[(layers["model"] == model) & (layers["experiment"] == experiment)].sort_values("layer")
    counts = rows[["kept_kv_groups", "kept_mlp_channels"]]
    if counts.empty or counts.isna().to_numpy().any():
        return nothing | reason_fields(Message("no_plan"))
    structure = ModelSizes.from_dict(manifest["structure"])
    kept = Kept(*(tuple(int(value) for value in counts[column]) for column in counts))
    return {
        "removed_param_fraction": 1 - kept.n_params(structure) / structure.total_params,
        "targets": [_entry(verdict) for verdict in verdicts(kept, structure, facts)],
        "rounding": rounding_costs(kept, structure),
        "advice": to_json(advice(kept, structure)),
        **reason_fields(None),
    }


def deployment_of_bests(
    analysis: Mapping[str, Any], layers: pd.DataFrame, manifest: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return `deployment_of` the best experiment of each pruning ratio, by experiment name.

    Args:
        analysis: Analysis of one model.
        layers: The layers table.
        manifest: Manifest of the model; None for an imported model.
    """
    bests = (content["best"] for content in analysis["by_ratio"].values())
    names = [best["experiment"] for best in bests if best is not None]
    return {name: deployment_of(layers, analysis["model"], name, manifest) for name in names}


def _entry(verdict: Verdict) -> dict[str, Any]:
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
