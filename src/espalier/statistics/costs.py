"""Inference costs of a model, pruned or not, from the sizes of its layers.

KV cache per token = sum over layers of 2 * kept KV groups * head size * bytes of one number        (keys and values)
FLOPs per token    = 2 * (kept weights of q, k, v, o, gate, up, down + weights of the output head)

Each weight takes part in one multiplication and one addition per token. Of experts, only those count that a token is
routed to. The output head counts even if it shares its weights with the embeddings. An embedding look-up costs nothing.
Norms, biases and activations (well under 1%) are not counted. The attention scores, which grow with the context, are
not counted either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.errors import UserError
from espalier.statistics.validation import IntArray, same_lengths

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class CostSizes:
    """Sizes of a model that pruning does not change.

    Attributes:
        head_dim: Head size.
        lm_head_params: Number of weights of the output head, tied or not: vocabulary size times hidden size.
        dtype: Dtype of the KV cache; a key of `DTYPE_BYTES`, or None if it is unknown.
        kv_group_biases: Number of biases in one KV group. If q, k and v have biases, it is
            (query heads of the group + 2) * head size.
        mlp_channel_biases: Number of biases in one MLP channel.
    """

    head_dim: int
    lm_head_params: int
    dtype: str | None
    kv_group_biases: int = 0
    mlp_channel_biases: int = 0


@dataclass(frozen=True)
class Costs:
    """Inference costs of a model.

    Attributes:
        n_params: Number of all parameters.
        kv_cache_bytes_per_token: Size of the KV cache per token; None if its dtype is unknown.
        flops_per_token: Floating-point operations per token.
    """

    n_params: int
    kv_cache_bytes_per_token: int | None
    flops_per_token: int

    def relative_to(self, unpruned: Costs) -> dict[str, float | None]:
        """Return each cost divided by the same cost of the unpruned model; None if that cost is 0 or unknown."""
        pairs = {
            "n_params": (self.n_params, unpruned.n_params),
            "kv_cache_bytes_per_token": (self.kv_cache_bytes_per_token, unpruned.kv_cache_bytes_per_token),
            "flops_per_token": (self.flops_per_token, unpruned.flops_per_token),
        }
        return {name: None if cost is None or not base else cost / base for name, (cost, base) in pairs.items()}


def costs(
    sizes: CostSizes,
    *,
    kv_groups: Any,
    attention_params: Any,
    mlp_channels: Any,
    mlp_params: Any,
    n_params: int,
) -> Costs:
    """Compute the costs of a model, pruned or not.

    Args:
        sizes: Sizes that pruning does not change.
        kv_groups: Number of KV groups of each layer, (n_layers,).
        attention_params: Number of prunable attention parameters of each layer, (n_layers,).
        mlp_channels: Number of MLP channels of each layer, (n_layers,).
        mlp_params: Number of MLP parameters of each layer that a token is multiplied with, (n_layers,).
        n_params: Number of all parameters of the model.

    Raises:
        UserError: If a count is negative, the dtype is unknown, or a layer has more biases than parameters.
        ValueError: If the arrays have different lengths.
    """
    columns = {
        name: _count_array(values, name)
        for name, values in {
            "kv_groups": kv_groups, "attention_params": attention_params,
            "mlp_channels": mlp_channels, "mlp_params": mlp_params,
        }.items()
    }  # fmt: skip
    same_lengths(**columns)
    if sizes.dtype is not None and sizes.dtype not in DTYPE_BYTES:
        raise UserError(f"cache type {sizes.dtype!r} is unknown; known are {', '.join(DTYPE_BYTES)}")
    groups, channels = columns["kv_groups"], columns["mlp_channels"]
    biases = groups * sizes.kv_group_biases + channels * sizes.mlp_channel_biases
    weights = columns["attention_params"] + columns["mlp_params"] - biases
    if (weights < 0).any():
        raise UserError("a layer has more biases than parameters; look at the biases of a KV group")
    cache = None if sizes.dtype is None else int(2 * groups.sum()) * sizes.head_dim * DTYPE_BYTES[sizes.dtype]
    return Costs(int(n_params), cache, 2 * (int(weights.sum()) + sizes.lm_head_params))


def _count_array(values: Any, name: str) -> IntArray:
    array = np.asarray(values, dtype=np.int64)
    if array.ndim != 1 or (array < 0).any():
        raise UserError(f"{name} must be one count of at least 0 for each layer")
    return array
