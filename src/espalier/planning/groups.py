"""The table of all groups of a model, with one row for each group in the order (layer, block, group).

The cost of a group is its number of parameters. Arrays of importances and scores have the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from espalier.models.architecture import KV_GROUP, MLP_CHANNEL, UNITS
from espalier.models.sizes import ModelSizes

ATTENTION_ID, MLP_ID = 0, 1
"""Numbers of the blocks in `GroupTable.block`."""
UNIT_BLOCKS = {KV_GROUP: ATTENTION_ID, MLP_CHANNEL: MLP_ID}
"""The block of each unit that is a group."""


@dataclass(frozen=True, eq=False)
class GroupTable:
    """All groups of a model: four arrays of shape (n_groups,).

    `layer` and `group` count from 0. `block` is ATTENTION_ID or MLP_ID. `cost` is the number of parameters of the
    group.
    """

    n_layers: int
    layer: NDArray[np.int32]
    block: NDArray[np.int8]
    group: NDArray[np.int32]
    cost: NDArray[np.int64]

    @classmethod
    def of(cls, sizes: ModelSizes) -> GroupTable:
        """Return the table of the KV groups and MLP channels of a model."""
        blocks = [
            (layer, block, n_groups, cost)
            for layer, layer_sizes in enumerate(sizes.layers)
            for block, n_groups, cost in (
                (ATTENTION_ID, layer_sizes.n_kv_groups, layer_sizes.kv_group_params),
                (MLP_ID, layer_sizes.n_mlp_channels, layer_sizes.mlp_channel_params),
            )
        ]
        layers, block_ids, counts, costs = np.array(blocks, dtype=np.int64).reshape(-1, 4).T
        starts = np.cumsum(counts) - counts
        return cls(
            n_layers=sizes.n_layers,
            layer=np.repeat(layers, counts).astype(np.int32),
            block=np.repeat(block_ids, counts).astype(np.int8),
            group=(np.arange(counts.sum()) - np.repeat(starts, counts)).astype(np.int32),
            cost=np.repeat(costs, counts),
        )

    def __len__(self) -> int:
        return len(self.layer)

    def name(self, index: int) -> str:
        """Return the name of a row for messages, such as "layer 3, MLP channel 17"."""
        unit = KV_GROUP if self.block[index] == ATTENTION_ID else MLP_CHANNEL
        return f"layer {self.layer[index]}, {UNITS[unit].title} {self.group[index]}"
