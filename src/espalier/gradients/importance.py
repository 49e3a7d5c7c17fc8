"""Taylor importance of prunable groups.

    importance(group) = sum over the weights w of the group of |w * g|

with g the gradient of the mean calibration loss. A KV group has the rows of q_proj, k_proj and v_proj (with their
biases) and the columns of o_proj of one key/value head and its query heads; an MLP channel has a row of gate_proj and
up_proj (with biases) and a column of down_proj. Source: Ma et al., LLM-Pruner (2023), first-order Taylor term, as in
the reference runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from espalier.gradients.accumulate import Gradient
from espalier.models.decoder import INPUT_SIDE

Importance = dict[tuple[int, str], npt.NDArray[np.float64]]
ATTENTION, MLP = "attention", "mlp"


def taylor_importance(gradients: Sequence[Gradient], n_samples: int, n_kv_groups: Sequence[int]) -> Importance:
    """Sum |w * g| over the weights of each group.

    Args:
        gradients: Sums of gradients over `n_samples` sequences.
        n_samples: What to divide the sums by.
        n_kv_groups: KV groups of each layer.

    Returns:
        For each (layer, block) the importance of its groups, float64: (n_kv_groups,) or (n_mlp_channels,).
    """
    importance: Importance = {}
    for gradient in gradients:
        projection = gradient.projection
        product = (gradient.parameter.detach().float() * gradient.total).abs_() / n_samples
        if product.dim() == 1 and projection.name in INPUT_SIDE:
            continue  # the bias of o_proj or down_proj belongs to no group
        per_feature = product if product.dim() == 1 else product.sum(dim=0 if projection.name in INPUT_SIDE else 1)
        key = (projection.layer, projection.block)
        n_groups = n_kv_groups[projection.layer] if projection.block == ATTENTION else len(per_feature)
        per_group = per_feature.double().view(n_groups, -1).sum(dim=1).cpu().numpy()
        importance[key] = importance.get(key, np.zeros(n_groups)) + per_group
    return importance


def importance_rows(importance: Importance, n_samples: int) -> dict[str, list[object] | npt.NDArray[np.generic]]:
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
