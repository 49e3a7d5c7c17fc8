"""Inference costs of each plan and of the unpruned model, as JSON: parameters, KV cache and FLOPs per token.

`espalier.statistics.costs` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from espalier.analysis.message_json import reason_fields
from espalier.messages.catalogue import Message
from espalier.models.sizes import ModelSizes
from espalier.statistics.costs import DTYPE_BYTES, Costs, CostSizes, costs


def costs_of(layers: pd.DataFrame, model: str, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """Compute the inference costs of the unpruned model and of each of its plans.

    Args:
        layers: The layers table.
        model: Name of the model.
        manifest: Manifest of the model, with its layer sizes and its config; None if there is no manifest.

    Returns:
        `baseline` and `experiments.<name>`, each with `n_params`, `kv_cache_bytes_per_token` and `flops_per_token`.
        Each experiment also has `relative`, the same costs divided by those of the unpruned model. `dtype` is the dtype
        of the KV cache: the dtype in the model's config. If that is missing or unknown, `dtype` and the sizes of the KV
        cache are None. `reason` and `why` say why costs are missing. `wrapper` says what is left out of a wrapper. It
        is absent for other models.

    Raises:
        UserError: If a count in the layers table is negative, or a layer has more biases than parameters.
    """
    config = manifest["config"] if manifest else {}
    if manifest is None or not {"hidden_size", "num_attention_heads", "vocab_size"} <= set(config):
        return {"dtype": None, "baseline": None, "experiments": {}, **reason_fields(Message("no_structure"))}
    structure = ModelSizes.from_dict(manifest["structure"])
    sizes = _cost_sizes(structure, config)
    unpruned = costs(
        sizes,
        kv_groups=[layer.n_kv_groups for layer in structure.layers],
        attention_params=[layer.attention_params for layer in structure.layers],
        mlp_channels=[layer.n_mlp_channels for layer in structure.layers],
        mlp_params=_active_mlp(structure, [(layer.mlp_params, layer.n_experts) for layer in structure.layers], config),
        n_params=structure.total_params,
    )
    plans = layers[layers["model"] == model]
    by_experiment = {
        str(name): _plan_costs(rows, structure, sizes, config) for name, rows in plans.groupby("experiment", sort=False)
    }
    return {
        **({"wrapper": manifest["wrapper"]} if "wrapper" in manifest else {}),
        "dtype": sizes.dtype,
        "baseline": asdict(unpruned),
        "experiments": {
            name: asdict(plan_costs) | {"relative": plan_costs.relative_to(unpruned)}
            for name, plan_costs in by_experiment.items()
        },
        **reason_fields(_reason(sizes, config) if by_experiment else Message("no_layers")),
    }


def _reason(sizes: CostSizes, config: Mapping[str, Any]) -> Message | None:
    """Return why the sizes of the KV cache are missing; None if they are known."""
    return Message("no_cache_dtype", {"dtype": str(_dtype(config) or "none")}) if sizes.dtype is None else None


def _dtype(config: Mapping[str, Any]) -> str | None:
    return config.get("dtype") or config.get("torch_dtype")


def _plan_costs(rows: pd.DataFrame, structure: ModelSizes, sizes: CostSizes, config: Mapping[str, Any]) -> Costs:
    kept = int(rows["params_after"].sum()) + structure.other_params
    mlp_params = [int(value) for value in rows["mlp_after"]]
    if structure.has_experts and "kept_experts" in rows:
        n_experts = [0 if pd.isna(value) else int(value) for value in rows["kept_experts"]]
        mlp_params = _active_mlp(structure, list(zip(mlp_params, n_experts, strict=True)), config)
    return costs(
        sizes,
        kv_groups=rows["kept_kv_groups"],
        attention_params=rows["attention_after"],
        mlp_channels=rows["kept_mlp_channels"],
        mlp_params=mlp_params,
        n_params=kept,
    )


def _active_mlp(structure: ModelSizes, kept: Sequence[tuple[int, int]], config: Mapping[str, Any]) -> list[int]:
    """Return the MLP weights of each layer that a token is multiplied with.

    With experts, these are the experts that a token is routed to, the router, and the shared expert with its gate.

    Args:
        structure: Sizes of the unpruned model.
        kept: Kept MLP parameters and kept experts of each layer; 0 experts in a dense or removed layer.
        config: Config of the model.
    """
    hidden, shared = int(config["hidden_size"]), int(config.get("shared_expert_intermediate_size") or 0)
    whole = (3 * shared + 1) * hidden if shared else 0
    return [
        params // n_experts * layer.experts_per_token + n_experts * layer.router_params + whole
        if layer.n_experts and n_experts
        else params
        for layer, (params, n_experts) in zip(structure.layers, kept, strict=True)
    ]


def _cost_sizes(structure: ModelSizes, config: Mapping[str, Any]) -> CostSizes:
    """Compute the sizes that all plans share. Biases of a group are its parameters minus its weights."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    first = structure.layers[0]
    queries = heads // first.n_kv_groups if first.n_kv_groups else 0
    weights = 2 * (queries + 1) * head_dim * hidden
    dtype = _dtype(config)
    return CostSizes(
        head_dim=head_dim,
        lm_head_params=int(config["vocab_size"]) * hidden,
        dtype=dtype if dtype in DTYPE_BYTES else None,
        kv_group_biases=max(0, first.kv_group_params - weights),
        mlp_channel_biases=max(0, first.mlp_channel_params // max(1, first.n_experts) - 3 * hidden),
    )
