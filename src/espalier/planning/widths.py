"""Selection, last step: MLP widths that are multiples of a number.

Admissible widths of an MLP: 0, m, 2m, ... and its full width n, whether or not that is a multiple. A narrower MLP loses
the channels with the lowest scores first. A step leads from one admissible width to the next; its score is the mean
score of the channels between them.

1. Every width goes to the nearest admissible one that its layer's limit permits; a tie goes up.
2. While the budget is exceeded, the step with the highest score is taken back.
3. While a step fits the budget and its layer's limit, the one with the lowest score is taken.

So the budget is missed by less than one step, as long as a step is left that its layer's limit permits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.planning.groups import ATTENTION, MLP, GroupTable


def fit_widths(
    groups: GroupTable,
    scores: NDArray[np.float64],
    removed: NDArray[np.bool_],
    budget: int,
    limits: NDArray[np.int64],
    multiple: int,
    *,
    near: bool,
) -> NDArray[np.bool_]:
    """Change which MLP channels are removed, so that widths are admissible.

    Args:
        groups: The model's groups.
        scores: Score of each group, (n_groups,).
        removed: What selection removed, within the budget, (n_groups,).
        budget: Parameters to remove.
        limits: Parameters that each layer may lose, (n_layers,); layers with 0 stay as they are.
        multiple: What widths are multiples of.
        near: Whether a width stays between the admissible ones on either side of what it was.

    Returns:
        Which groups are removed, (n_groups,).
    """
    blocks = []
    for layer in np.flatnonzero(limits > 0):
        in_layer = groups.layer == layer
        channels = np.flatnonzero(in_layer & (groups.block == MLP))
        attention = int(groups.cost[in_layer & (groups.block == ATTENTION) & removed].sum())
        if channels.size:
            block = _describe(groups, scores, removed, channels, multiple)
            block.bound(int(limits[layer]) - attention, near=near)
            blocks.append(block)
    left = budget - int(groups.cost[removed].sum())
    _step_to_budget(blocks, left + sum(block.move(block.nearest()) for block in blocks))
    removed = removed.copy()
    for block in blocks:
        removed[block.channels] = np.arange(block.full) < block.full - block.width
    return removed


@dataclass
class _Block:
    """The MLP of one layer while its width is fitted."""

    channels: NDArray[np.int64]  # rows of the table, lowest score first
    scores: NDArray[np.float64]  # of these channels
    cost: int
    multiple: int
    width: int
    lowest: int = 0
    highest: int = 0

    @property
    def full(self) -> int:
        return len(self.channels)

    def bound(self, limit: int, *, near: bool) -> None:
        """Set the narrowest and widest width for a loss of at most `limit` parameters."""
        self.lowest = self.ceil(max(0, self.full - limit // self.cost))
        self.highest = self.full
        if near:
            self.lowest = max(self.lowest, self.floor(self.width))
            self.highest = self.ceil(self.width)

    def floor(self, width: int) -> int:
        """The next admissible width that is not larger."""
        return width if width == self.full else width // self.multiple * self.multiple

    def ceil(self, width: int) -> int:
        """The next admissible width that is not smaller."""
        return min(-(-width // self.multiple) * self.multiple, self.full)

    def nearest(self) -> int:
        """The nearest admissible width within the bounds."""
        under, over = self.floor(self.width), self.ceil(self.width)
        nearest = under if self.width - under < over - self.width else over
        return min(max(nearest, self.lowest), self.highest)

    def move(self, width: int) -> int:
        """Take another width; returns the parameters that come back."""
        gained = (width - self.width) * self.cost
        self.width = width
        return gained

    def step_score(self, width: int) -> float:
        """Mean score of the channels between the present width and another."""
        first, last = sorted((self.full - width, self.full - self.width))
        return float(self.scores[first:last].mean())


def _describe(
    groups: GroupTable,
    scores: NDArray[np.float64],
    removed: NDArray[np.bool_],
    channels: NDArray[np.int64],
    multiple: int,
) -> _Block:
    """Sort the channels of an MLP by score."""
    channels = channels[np.argsort(scores[channels], kind="stable")]
    width = int((~removed[channels]).sum())
    return _Block(channels, scores[channels], int(groups.cost[channels[0]]), multiple, width)


def _step_to_budget(blocks: list[_Block], left: int) -> None:
    """Take steps back while more than the budget is removed (`left` < 0), then take those that fit."""
    while left < 0:
        narrowed = [block for block in reversed(blocks) if block.width < block.highest]
        block = max(narrowed, key=lambda block: block.step_score(block.ceil(block.width + 1)))
        left += block.move(block.ceil(block.width + 1))
    while steps := [
        (block.step_score(width), index, width)
        for index, block in enumerate(blocks)
        if block.width > block.lowest and (block.width - (width := block.floor(block.width - 1))) * block.cost <= left
    ]:
        _, index, width = min(steps)
        left += blocks[index].move(width)
