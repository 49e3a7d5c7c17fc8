"""The last step of selection: change MLP widths to multiples of a number m.

The width of an MLP is the number of channels that it keeps: those with the highest scores. The allowed widths are 0, m,
2m, ... and the full width n, even if n is not a multiple of m. A step changes a width to the next smaller allowed
width. The score of a step is the mean score of the channels that it removes.

1. Change every width to the nearest allowed width at which the layer does not lose more than its limit. Halfway between
   two allowed widths, take the larger one.
2. While the budget is exceeded, undo the step with the highest score.
3. While a step fits the budget and the limit of its layer, take the step with the lowest score.

The removed parameters then fall short of the budget by less than one step, as long as the limits allow another step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.planning.groups import ATTENTION_ID, MLP_ID, GroupTable


def fit_widths(
    groups: GroupTable,
    scores: NDArray[np.float64],
    removed: NDArray[np.bool_],
    budget: int,
    limits: NDArray[np.int64],
    multiple: int,
    *,
    adjacent_only: bool,
) -> NDArray[np.bool_]:
    """Change the mask of removed groups, so that all MLP widths are allowed.

    Args:
        groups: The model's groups.
        scores: Score of each group, (n_groups,).
        removed: Mask of the groups that selection removed within the budget, (n_groups,).
        budget: Most parameters to remove in all layers together.
        limits: Most parameters that each layer may lose, (n_layers,). Layers with limit 0 are not changed.
        multiple: The number m.
        adjacent_only: Whether each width may only change to the next smaller or next larger allowed width. The layers
            then keep about the share of parameters that selection gave them.

    Returns:
        Mask of the groups to remove, (n_groups,).
    """
    mlps = []
    for layer in np.flatnonzero(limits > 0):
        in_layer = groups.layer == layer
        channels = np.flatnonzero(in_layer & (groups.block == MLP_ID))
        attention = int(groups.cost[in_layer & (groups.block == ATTENTION_ID) & removed].sum())
        if channels.size:
            mlp = _mlp_width(groups, scores, removed, channels, multiple)
            mlp.bound(int(limits[layer]) - attention, adjacent_only=adjacent_only)
            mlps.append(mlp)
    left = budget - int(groups.cost[removed].sum())
    _step_to_budget(mlps, left + sum(mlp.move(mlp.nearest()) for mlp in mlps))
    removed = removed.copy()
    for mlp in mlps:
        removed[mlp.channels] = np.arange(mlp.full) < mlp.full - mlp.width
    return removed


@dataclass
class _MlpWidth:
    """The MLP of one layer, whose width is changed step by step."""

    channels: NDArray[np.int64]  # rows of the group table, lowest score first
    scores: NDArray[np.float64]  # of these channels, increasing
    cost: int  # parameters of one channel
    multiple: int
    width: int  # channels that it keeps
    lowest: int = 0  # lower bound of the width, set by `bound`
    highest: int = 0  # upper bound of the width, set by `bound`

    @property
    def full(self) -> int:
        return len(self.channels)

    def bound(self, limit: int, *, adjacent_only: bool) -> None:
        """Set the smallest and largest width, so that the MLP loses at most `limit` parameters."""
        self.lowest = self.ceil(max(0, self.full - limit // self.cost))
        self.highest = self.full
        if adjacent_only:
            self.lowest = max(self.lowest, self.floor(self.width))
            self.highest = self.ceil(self.width)

    def floor(self, width: int) -> int:
        """Return the largest allowed width that is at most `width`."""
        return width if width == self.full else width // self.multiple * self.multiple

    def ceil(self, width: int) -> int:
        """Return the smallest allowed width that is at least `width`."""
        return min(-(-width // self.multiple) * self.multiple, self.full)

    def nearest(self) -> int:
        """Return the allowed width that is nearest to the current width and within the bounds."""
        under, over = self.floor(self.width), self.ceil(self.width)
        nearest = under if self.width - under < over - self.width else over
        return min(max(nearest, self.lowest), self.highest)

    def move(self, width: int) -> int:
        """Set the width, and return by how many parameters the MLP grows (negative if it becomes narrower)."""
        gained = (width - self.width) * self.cost
        self.width = width
        return gained

    def step_score(self, width: int) -> float:
        """Return the mean score of the channels between the current width and `width`."""
        first, last = sorted((self.full - width, self.full - self.width))
        return float(self.scores[first:last].mean())


def _mlp_width(
    groups: GroupTable,
    scores: NDArray[np.float64],
    removed: NDArray[np.bool_],
    channels: NDArray[np.int64],
    multiple: int,
) -> _MlpWidth:
    """Create the record of one MLP from the rows of its channels in the group table."""
    channels = channels[np.argsort(scores[channels], kind="stable")]
    width = int((~removed[channels]).sum())
    return _MlpWidth(channels, scores[channels], int(groups.cost[channels[0]]), multiple, width)


def _step_to_budget(mlps: list[_MlpWidth], left: int) -> None:
    """Undo steps while the budget is exceeded, then take steps that fit the remaining budget.

    `left` is the number of parameters that may still be removed. It is negative if the budget is exceeded.
    """
    while left < 0:
        # Of equal scores, undo the step of the last layer, because selection removes groups of the first layers first.
        narrowed = [mlp for mlp in reversed(mlps) if mlp.width < mlp.highest]
        mlp = max(narrowed, key=lambda mlp: mlp.step_score(mlp.ceil(mlp.width + 1)))
        left += mlp.move(mlp.ceil(mlp.width + 1))
    while steps := [
        (mlp.step_score(width), index, width)
        for index, mlp in enumerate(mlps)
        if mlp.width > mlp.lowest and (mlp.width - (width := mlp.floor(mlp.width - 1))) * mlp.cost <= left
    ]:
        _, index, width = min(steps)
        left += mlps[index].move(width)
