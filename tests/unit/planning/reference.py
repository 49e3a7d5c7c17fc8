"""A reference implementation of selection in plain Python, and random models for comparing the two."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.groups import GroupTable


@dataclass(frozen=True)
class Case:
    """A random model, with scores that are often equal."""

    sizes: ModelSizes
    scores: NDArray[np.float64]

    @property
    def groups(self) -> GroupTable:
        """Table of the model's groups."""
        return GroupTable.of(self.sizes)


@st.composite
def cases(draw: st.DrawFn, min_layers: int = 1, max_channels: int = 8) -> Case:
    """Draw a model of up to six layers of unequal sizes."""
    layer = st.builds(
        LayerSizes,
        n_kv_groups=st.integers(0, 3),
        kv_group_params=st.integers(1, 30),
        n_mlp_channels=st.integers(0, max_channels),
        mlp_channel_params=st.integers(1, 9),
        fixed_params=st.integers(0, 5),
    )
    layers = draw(st.lists(layer, min_size=min_layers, max_size=6))
    sizes = ModelSizes(tuple(layers), draw(st.integers(1, 50)))
    n_groups = sum(layer.n_kv_groups + layer.n_mlp_channels for layer in layers)
    scores = draw(st.lists(st.integers(0, 6), min_size=n_groups, max_size=n_groups))
    return Case(sizes, np.array(scores, dtype=np.float64))


def greedy(case: Case, budget: int, limits: Sequence[int]) -> list[bool]:
    """Remove groups one by one, lowest score first, while they fit.

    Args:
        case: The model with its scores.
        budget: Parameters to remove at most.
        limits: Parameters that each layer may lose.

    Returns:
        For each group whether it is removed.
    """
    groups, room = case.groups, list(limits)
    layer, cost = groups.layer.tolist(), groups.cost.tolist()
    removed = [False] * len(groups)
    for row in sorted(
        range(len(groups)), key=lambda row: (case.scores[row], layer[row], groups.block[row], groups.group[row])
    ):
        if cost[row] <= min(budget, room[layer[row]]):
            removed[row] = True
            budget -= cost[row]
            room[layer[row]] -= cost[row]
    return removed


def share_of(ratio: float, count: int) -> int:
    return int(Fraction(str(ratio)) * count)
