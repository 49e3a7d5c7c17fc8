"""Selection of whole layers.

target = pruning_ratio * total_params

Whole layers do not meet a target exactly. A plan removes the number of layers that comes nearest to it: layers are
taken in the order (score, layer), and a layer is removed if the removed parameters then come nearer to the target. If
a layer would end as far beyond the target as selection is below it, it stays. So the removed parameters miss the target
by at most half of the smallest layer that could still be removed, or exceed it by less than half of a layer.

contiguous  The removed layers are consecutive. Of all runs of layers that may be removed, those nearest to the target
            are considered (of equally near ones, the smaller). Of these, the run with the lowest mean score over its
            parameters is removed; of equal ones, the first.

Frozen layers stay, and so does at least one layer.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.sizes import ModelSizes
from espalier.planning.select import SelectionOptions, exact


def check_depth(sizes: ModelSizes, pruning_ratio: float, options: SelectionOptions) -> None:
    """Check that whole layers can come nearest to a ratio, whatever the scores.

    Raises:
        UserError: If the nearest plan would remove no layer, every layer or frozen layers, or if an option has no
            meaning for whole layers.
    """
    check_depth_options(options)
    costs, total = layer_costs(sizes), sizes.total_params
    free = _free_layers(sizes.n_layers, options)
    target = exact(pruning_ratio) * total
    removable = sorted(costs[free].tolist())
    if len(free) == sizes.n_layers:
        removable = removable[:-1]  # one layer stays
    if not removable:
        raise UserError(f"units [layer]: no layer may be removed{_frozen(options)}; freeze fewer layers")
    most, smallest = sum(removable), removable[0]
    if 2 * (target - most) > smallest:
        raise UserError(
            f"pruning_ratio {pruning_ratio} means removing {int(target):,} of {total:,} parameters, but at most "
            f"{len(removable)} of {sizes.n_layers} layers can go, {most:,} parameters{_frozen(options)}; lower "
            f"pruning_ratio to at most {_rounded_down(Fraction(2 * most + smallest, 2 * total))}"
        )
    if pruning_ratio > 0 and 2 * target <= smallest:
        raise UserError(
            f"pruning_ratio {pruning_ratio} means removing {int(target):,} of {total:,} parameters, but a layer has "
            f"{smallest:,}, so removing none is nearest; raise pruning_ratio above {smallest / (2 * total):.4f}"
        )


def check_depth_options(options: SelectionOptions) -> None:
    """Check that no option is set that has no meaning for whole layers. `mlp_multiple_of` is met by every whole layer.

    Raises:
        UserError: If one is set.
    """
    if options.max_layer_ratio < 1:
        raise UserError(
            f"selection.max_layer_ratio {options.max_layer_ratio} forbids removing whole layers; remove it, or the "
            "methods with units [layer]"
        )
    if options.collapse_below > 0:
        raise UserError(
            f"selection.collapse_below {options.collapse_below} has no effect on whole layers; remove it, or the "
            "methods with units [layer]"
        )


def select_layers(
    sizes: ModelSizes,
    scores: NDArray[np.float64],
    pruning_ratio: float,
    options: SelectionOptions,
    *,
    contiguous: bool = False,
) -> NDArray[np.bool_]:
    """Choose the layers to remove.

    Args:
        sizes: The model's sizes.
        scores: Score of each layer, finite, (n_layers,).
        pruning_ratio: Share of all parameters to remove, in [0, 1).
        options: Constraints.
        contiguous: Whether the removed layers are consecutive.

    Returns:
        Mask of the layers to remove, (n_layers,).

    Raises:
        UserError: If the request is infeasible (`check_depth`).
        ValueError: If the scores have a wrong shape or are not finite.
    """
    if scores.shape != (sizes.n_layers,) or not np.isfinite(scores).all():
        raise ValueError(f"{sizes.n_layers} finite scores are needed, one per layer")
    check_depth(sizes, pruning_ratio, options)
    costs, free = layer_costs(sizes), _free_layers(sizes.n_layers, options)
    target = exact(pruning_ratio) * sizes.total_params
    most = min(len(free), sizes.n_layers - 1)
    removed = np.zeros(sizes.n_layers, dtype=bool)
    removed[
        _nearest_run(costs, scores, free, target, most) if contiguous else _nearest(costs, scores, free, target, most)
    ] = True
    return removed


def layer_costs(sizes: ModelSizes) -> NDArray[np.int64]:
    """Return the number of parameters of each layer, (n_layers,)."""
    return np.array([layer.params for layer in sizes.layers], dtype=np.int64)


def _free_layers(n_layers: int, options: SelectionOptions) -> list[int]:
    """Return the layers that are not frozen; they are consecutive."""
    return list(range(options.freeze_first_layers, n_layers - options.freeze_last_layers))


def _nearest(
    costs: NDArray[np.int64], scores: NDArray[np.float64], free: list[int], target: Fraction, most: int
) -> list[int]:
    taken: list[int] = []
    for layer in sorted(free, key=lambda layer: (scores[layer], layer)):
        if len(taken) < most and 2 * target > int(costs[layer]):
            taken.append(layer)
            target -= int(costs[layer])
    return taken


def _nearest_run(
    costs: NDArray[np.int64], scores: NDArray[np.float64], free: list[int], target: Fraction, most: int
) -> list[int]:
    runs = [free[start:end] for start in range(len(free)) for end in range(start, min(len(free), start + most) + 1)]

    def rank(run: list[int]) -> tuple[Fraction, int, float, int]:
        n_params = int(costs[run].sum())
        mean = float((scores[run] * costs[run]).sum()) / n_params if run else 0.0
        return abs(n_params - target), n_params, mean, run[0] if run else 0

    return min(runs, key=rank)


def _frozen(options: SelectionOptions) -> str:
    frozen = {"freeze_first_layers": options.freeze_first_layers, "freeze_last_layers": options.freeze_last_layers}
    given = [f"{name} {count}" for name, count in frozen.items() if count]
    return f" with {', '.join(given)}" if given else ""


def _rounded_down(share: Fraction) -> str:
    return f"{int(share * 10_000) / 10_000:g}"
