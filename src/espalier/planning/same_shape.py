"""Selection with `allocation: same_shape`: all layers keep as many KV groups, and as many MLP channels.

share = floor(budget / number of layers), the most parameters that a layer may lose

Each layer loses its a KV groups and its m MLP channels with the lowest scores (of equal ones, the first). For each
allowed a, m is the largest number with a * kv_group_params + m * mlp_channel_params <= share for which n - m, the kept
width, is allowed. Of these pairs, the one is taken whose removed parameters have the lowest mean score; of equal ones,
the one with the smaller a. At least one group of each kind stays.

Allowed widths are multiples of `mlp_multiple_of`, and the full width. Numbers of KV groups may be restricted to those
that the model's stock config accepts (`kv_group_counts`). A pair is left out if m cannot grow although its share is not
used, unless there is no other pair. The pair that removes nothing is left out, too, if there is another. So the removed
parameters fall short of the budget by less than one step of the widths in all layers, as long as the widths allow
another step.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import ATTENTION_ID, MLP_ID, GroupTable
from espalier.planning.select import SelectionOptions, check_budget, floor_share


def check_same_shape(
    sizes: ModelSizes, pruning_ratio: float, options: SelectionOptions, kv_group_counts: Collection[int] | None = None
) -> None:
    """Check that a request is possible, whatever the scores; `select_same_shape` describes the arguments.

    Raises:
        UserError: If the layers of the model differ, an option contradicts equal shapes, or the ratio is too large or
            too small.
    """
    if len({(layer.n_kv_groups, layer.n_mlp_channels, layer.prunable_params) for layer in sizes.layers}) > 1:
        raise UserError(
            "allocation same_shape: the layers of the unpruned model differ in size; use another allocation"
        )
    wrong = {"freeze_first_layers": 0, "freeze_last_layers": 0, "collapse_below": 0.0}
    for name, usual in wrong.items():
        if (value := getattr(options, name)) != usual:
            raise UserError(
                f"selection.{name} {value} gives layers different shapes, which allocation same_shape forbids; remove "
                "one of the two"
            )
    layer = sizes.layers[0]
    widths, counts = _allowed_widths(layer, options.mlp_multiple_of), _allowed_counts(layer, kv_group_counts)
    limit = floor_share(options.max_layer_ratio, layer.prunable_params)
    most = min(limit, layer.params - _kept_params(layer, min(counts), min(widths)))
    check_budget(sizes, pruning_ratio, options, sizes.n_layers * most, "allocation same_shape")
    share = floor_share(pruning_ratio, sizes.total_params) // sizes.n_layers
    if pruning_ratio > 0 and not any(n_params for _, _, n_params in _pairs(layer, share, widths, counts)):
        raise UserError(
            f"pruning_ratio {pruning_ratio} means removing {share:,} parameters of each layer, less than the smallest "
            "step of allocation same_shape; raise pruning_ratio or lower selection.mlp_multiple_of"
        )


def select_same_shape(
    groups: GroupTable,
    sizes: ModelSizes,
    scores: NDArray[np.float64],
    pruning_ratio: float,
    options: SelectionOptions,
    kv_group_counts: Collection[int] | None = None,
) -> NDArray[np.bool_]:
    """Choose the groups to remove.

    Args:
        groups: The model's groups.
        sizes: The model's sizes; all layers are equal.
        scores: Score of each group, finite, (n_groups,).
        pruning_ratio: Share of all parameters to remove, in [0, 1).
        options: Constraints.
        kv_group_counts: Numbers of KV groups that a layer may keep; None allows all.

    Returns:
        Mask of the groups to remove, (n_groups,).

    Raises:
        UserError: If the request is infeasible (`check_same_shape`).
        ValueError: If the scores have a wrong shape or are not finite.
    """
    if scores.shape != (len(groups),) or not np.isfinite(scores).all():
        raise ValueError(f"{len(groups)} finite scores are needed, one per group")
    check_same_shape(sizes, pruning_ratio, options, kv_group_counts)
    layer = sizes.layers[0]
    share = floor_share(pruning_ratio, sizes.total_params) // sizes.n_layers
    order = np.lexsort((scores, groups.block, groups.layer))
    ranks = np.empty(len(groups), dtype=np.int64)
    n = layer.n_kv_groups + layer.n_mlp_channels
    ranks[order] = np.arange(len(groups)) % n  # within the layer, KV groups first
    attention, mlp = groups.block == ATTENTION_ID, groups.block == MLP_ID
    kv_losses = _losses(scores[attention], ranks[attention], layer.n_kv_groups, layer.kv_group_params)
    mlp_losses = _losses(scores[mlp], ranks[mlp] - layer.n_kv_groups, layer.n_mlp_channels, layer.mlp_channel_params)
    pairs = _pairs(
        layer, share, _allowed_widths(layer, options.mlp_multiple_of), _allowed_counts(layer, kv_group_counts)
    )

    def mean_score(pair: tuple[int, int, int]) -> float:
        n_kv, n_mlp, n_params = pair
        return float(kv_losses[n_kv] + mlp_losses[n_mlp]) / n_params if n_params else 0.0

    n_kv, n_mlp, _ = min(pairs, key=mean_score)
    removed: NDArray[np.bool_] = (attention & (ranks < n_kv)) | (mlp & (ranks - layer.n_kv_groups < n_mlp))
    return removed


def _losses(scores: NDArray[np.float64], ranks: NDArray[np.int64], n: int, cost: int) -> NDArray[np.float64]:
    """Return the summed importance of the 0, 1, ..., n groups with the lowest scores in all layers, (n + 1,)."""
    by_rank = np.bincount(ranks, weights=scores, minlength=n)
    return np.concatenate(([0.0], np.cumsum(by_rank))) * cost


def _allowed_widths(layer: LayerSizes, multiple: int) -> list[int]:
    n = layer.n_mlp_channels
    return sorted({n, *range(multiple, n, multiple)})


def _allowed_counts(layer: LayerSizes, kv_group_counts: Collection[int] | None) -> list[int]:
    n = layer.n_kv_groups
    return sorted({n, *(count for count in range(1, n) if kv_group_counts is None or count in kv_group_counts)})


def _kept_params(layer: LayerSizes, n_kv: int, n_mlp: int) -> int:
    return n_kv * layer.kv_group_params + n_mlp * layer.mlp_channel_params + layer.fixed_params


def _pairs(layer: LayerSizes, share: int, widths: list[int], counts: list[int]) -> list[tuple[int, int, int]]:
    """Return the possible (removed KV groups, removed channels, removed parameters) of a layer, fewer KV groups first.

    Pairs that leave a part of the share because the MLP cannot be narrower are returned only if there are no others;
    then those that remove most.
    """
    pairs: list[tuple[int, int, int]] = []
    exhausted: list[tuple[int, int, int]] = []
    for count in reversed(counts):
        n_kv = layer.n_kv_groups - count
        left = share - n_kv * layer.kv_group_params
        if left < 0:
            break
        width = next(width for width in widths if (layer.n_mlp_channels - width) * layer.mlp_channel_params <= left)
        n_mlp = layer.n_mlp_channels - width
        pair = (n_kv, n_mlp, n_kv * layer.kv_group_params + n_mlp * layer.mlp_channel_params)
        (exhausted if width == widths[0] and pair[2] < share else pairs).append(pair)
    if pairs:
        # A plan that removes nothing has no mean score; it is no answer if something can be removed.
        return [pair for pair in pairs if pair[2]] or pairs
    most = max(n_params for _, _, n_params in exhausted)
    return [pair for pair in exhausted if pair[2] == most]
