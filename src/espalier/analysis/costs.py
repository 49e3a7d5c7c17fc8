"""Inference costs of each plan and of the unpruned model: parameters, KV cache and FLOPs per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from espalier.analysis.message_json import reason_fields
from espalier.models.sizes import ModelSizes
from espalier.statistics.costs import DTYPE_BYTES, Costs, costs
from espalier.statistics.messages import Message


def costs_of(layers: pd.DataFrame, model: str, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """Compute the inference costs of the unpruned model and of each of its plans.

    Args:
        layers: The layers table.
        model: Name of the model.
        manifest: Manifest of the model, with its layer sizes and its config; None if there is no manifest.

    Returns:
        `baseline` and `experiments.<name>`, each with `n_params`, `kv_cache_bytes_per_token` and `flops_per_token`.
        Each experiment also has `relative`, the same costs divided by those of the unpruned model. `dtype` is the dtype
        of the KV cache: the dtype in the model's config, or bfloat16 if that is missing or unknown. `reason` and `why`
        say why costs are missing.

    Raises:
        UserError: If a count in the layers table is negative, or a layer has more biases than parameters.
    """
    config = manifest["config"] if manifest else {}
    if manifest is None or not {"hidden_size", "num_attention_heads", "vocab_size"} <= set(config):
        return {"dtype": None, "baseline": None, "experiments": {}, **reason_fields(Message("no_structure"))}
    structure = ModelSizes.from_dict(manifest["structure"])
    sizes = _sizes(structure, config)
    unpruned = costs(
        kv_groups=[layer.n_kv_groups for layer in structure.layers],
        attention_params=[layer.attention_params for layer in structure.layers],
        mlp_channels=[layer.n_mlp_channels for layer in structure.layers],
        mlp_params=[layer.mlp_params for layer in structure.layers],
        n_params=structure.total_params,
        **sizes,
    )
    plans = layers[layers["model"] == model]
    found = {str(name): _plan(rows, structure, sizes) for name, rows in plans.groupby("experiment", sort=False)}
    return {
        "dtype": sizes["dtype"],
        "baseline": asdict(unpruned),
        "experiments": {name: asdict(one) | {"relative": one.relative_to(unpruned)} for name, one in found.items()},
        **reason_fields(None if found else Message("no_layers")),
    }


def _plan(rows: pd.DataFrame, structure: ModelSizes, sizes: Mapping[str, Any]) -> Costs:
    kept = int(rows["params_after"].sum()) + structure.other_params
    return costs(
        kv_groups=rows["kept_kv_groups"],
        attention_params=rows["attention_after"],
        mlp_channels=rows["kept_mlp_channels"],
        mlp_params=rows["mlp_after"],
        n_params=kept,
        **sizes,
    )


def _sizes(structure: ModelSizes, config: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the arguments of `costs` that all plans share. Biases of a group are its parameters minus its weights."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    first = structure.layers[0]
    queries = heads // first.n_kv_groups if first.n_kv_groups else 0
    weights = 2 * (queries + 1) * head_dim * hidden
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "")
    return {
        "head_dim": head_dim,
        "lm_head_params": int(config["vocab_size"]) * hidden,
        "dtype": dtype if dtype in DTYPE_BYTES else "bfloat16",
        "kv_group_biases": max(0, first.kv_group_params - weights),
        "mlp_channel_biases": max(0, first.mlp_channel_params - 3 * hidden),
    }
