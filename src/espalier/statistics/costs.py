"""What a pruned model costs to run, from its layer table.

KV cache per token = sum over layers of 2 * kept KV groups * head size * bytes of one number        (keys and values)
FLOPs per token    = 2 * (weights of q, k, v, o, gate, up, down that are kept + weights of the output head)

A weight is used once per token, in a multiplication and an addition. The output head counts whether or not it shares
its weights with the embeddings; looking an embedding up costs nothing. Norms, biases and activations (well under 1%),
and the attention scores, which grow with the context, are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.errors import UserError
from espalier.statistics.checks import IntArray, same_lengths

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Costs:
    """Costs of a model: parameters (all), bytes of KV cache and floating-point operations per token."""

    n_params: int
    kv_cache_bytes_per_token: int
    flops_per_token: int

    def relative_to(self, unpruned: Costs) -> dict[str, float | None]:
        """Divide by the costs of the unpruned model; null where those are 0."""
        pairs = {
            "n_params": (self.n_params, unpruned.n_params),
            "kv_cache_bytes_per_token": (self.kv_cache_bytes_per_token, unpruned.kv_cache_bytes_per_token),
            "flops_per_token": (self.flops_per_token, unpruned.flops_per_token),
        }
        return {name: ours / theirs if theirs else None for name, (ours, theirs) in pairs.items()}


def costs(
    *,
    kv_groups: Any,
    attention_params: Any,
    mlp_channels: Any,
    mlp_params: Any,
    n_params: int,
    head_dim: int,
    lm_head_params: int,
    dtype: str,
    kv_group_biases: int = 0,
    mlp_channel_biases: int = 0,
) -> Costs:
    """Compute the costs of a model, pruned or not.

    Args:
        kv_groups: KV groups of each layer, (n_layers,).
        attention_params: Prunable attention parameters of each layer, (n_layers,).
        mlp_channels: MLP channels of each layer, (n_layers,).
        mlp_params: Prunable MLP parameters of each layer, (n_layers,).
        n_params: All parameters of the model.
        head_dim: Head size.
        lm_head_params: Weights of the output head, vocabulary times hidden size, tied or not.
        dtype: Type of the cached numbers, a key of `DTYPE_BYTES`.
        kv_group_biases: Biases among the parameters of one KV group: (query heads of it + 2) * head size where q, k
            and v have them.
        mlp_channel_biases: Biases among the parameters of one MLP channel.

    Raises:
        UserError: If a count is negative or the type is unknown.
    """
    columns = {
        name: _whole(values, name)
        for name, values in {
            "kv_groups": kv_groups, "attention_params": attention_params,
            "mlp_channels": mlp_channels, "mlp_params": mlp_params,
        }.items()
    }  # fmt: skip
    same_lengths(**columns)
    if dtype not in DTYPE_BYTES:
        raise UserError(f"cache type {dtype!r} is unknown; known are {', '.join(DTYPE_BYTES)}")
    groups, channels = columns["kv_groups"], columns["mlp_channels"]
    weights = (
        columns["attention_params"] - groups * kv_group_biases + columns["mlp_params"] - channels * mlp_channel_biases
    )
    if (weights < 0).any():
        raise UserError("a layer has more biases than parameters; look at the biases of a KV group")
    return Costs(
        n_params=int(n_params),
        kv_cache_bytes_per_token=int(2 * groups.sum()) * head_dim * DTYPE_BYTES[dtype],
        flops_per_token=2 * (int(weights.sum()) + lm_head_params),
    )


def _whole(values: Any, name: str) -> IntArray:
    array = np.asarray(values, dtype=np.int64)
    if array.ndim != 1 or (array < 0).any():
        raise UserError(f"{name} must be one count of at least 0 for each layer")
    return array
