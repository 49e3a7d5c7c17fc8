"""Importance of prunable groups: the sum over a group's weights.

A KV group has the rows of q_proj, k_proj and v_proj (with their biases) and the columns of o_proj of one key/value head
and its query heads; an MLP channel has a row of gate_proj and up_proj (with biases) and a column of down_proj.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from espalier.planning.criteria import Criterion
from espalier.calibration.gradients import Sums
from espalier.models.decoder import INPUT_SIDE

GroupImportance = dict[tuple[int, str], npt.NDArray[np.float64]]
ATTENTION = "attention"


def group_importance(
    criterion: Criterion, sums: Sequence[Sums], n_samples: int, n_kv_groups: Mapping[int, int]
) -> GroupImportance:
    """Sum a criterion over the weights of each group.

    Args:
        criterion: One that looks at weights.
        sums: What was summed over `n_samples` sequences.
        n_samples: Number of sequences.
        n_kv_groups: KV groups of each layer.

    Returns:
        For each (layer, block) the importance of its groups, float64: (n_kv_groups,) or (n_mlp_channels,).
    """
    if criterion.of_weights is None:
        raise ValueError("this criterion looks at no weights")
    importance: GroupImportance = {}
    for each in sums:
        projection, is_bias = each.projection, each.parameter.dim() == 1
        if is_bias and projection.name in INPUT_SIDE:
            continue  # the bias of o_proj or down_proj belongs to no group
        values = criterion.of_weights(each.evidence(n_samples))
        per_feature = values if is_bias else values.sum(dim=0 if projection.name in INPUT_SIDE else 1)
        n_groups = n_kv_groups[projection.layer] if projection.block == ATTENTION else len(per_feature)
        per_group = per_feature.double().view(n_groups, -1).sum(dim=1).cpu().numpy()
        key = (projection.layer, projection.block)
        importance[key] = importance.get(key, np.zeros(n_groups)) + per_group
    return importance


def importance_rows(importance: GroupImportance, n_samples: int) -> dict[str, npt.NDArray[np.generic]]:
    """Make columns of the importance table, in the order layer, block (attention first), group."""
    keys = sorted(importance, key=lambda key: (key[0], key[1] != ATTENTION))
    sizes = [len(importance[key]) for key in keys]
    return {
        "n_samples": np.full(sum(sizes), n_samples),
        "layer": np.repeat([layer for layer, _ in keys], sizes),
        "block": np.repeat([block for _, block in keys], sizes).astype(object),
        "group": np.concatenate([np.arange(size) for size in sizes]),
        "importance": np.concatenate([importance[key] for key in keys]),
    }
