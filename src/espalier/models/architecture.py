"""The table of architectures: which tensors belong to the units that pruning removes.

All other modules look up the names of projections and units here. All supported families (Llama, Mistral, Qwen2, Qwen3
and the like) use the same names. This file is copied to exported model folders, so it imports only the standard
library.

A KV group is a key/value head with the query heads that share it. An MLP channel is a hidden unit of the MLP. In every
projection of a block, the groups are consecutive slices of equal size. In a projection that reads the residual stream,
they are slices of the rows and of the bias. In the projection that writes to the residual stream, they are slices of
the columns. The bias of the latter belongs to no group. A layer is a whole decoder layer with all of its tensors.
"""

from __future__ import annotations

from typing import NamedTuple


class BlockNames(NamedTuple):
    """Names of the modules of one block of a decoder layer.

    Attributes:
        path: Name of the block within the layer.
        readers: Projections that read the residual stream. Their rows belong to groups.
        writer: The projection that writes to the residual stream. Its columns belong to groups, its bias to no group.
        counted: The reader whose rows count the groups, because each group has one head or one channel in it.
    """

    path: str
    readers: tuple[str, ...]
    writer: str
    counted: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all projections, the writer last."""
        return (*self.readers, self.writer)

    @property
    def paths(self) -> tuple[str, ...]:
        """Names within the layer of all projections, such as `self_attn.q_proj`; the writer last."""
        return tuple(f"{self.path}.{name}" for name in self.names)

    @property
    def counted_path(self) -> str:
        """Name within the layer of the projection whose rows count the groups."""
        return f"{self.path}.{self.counted}"

    @property
    def writer_path(self) -> str:
        """Name within the layer of the projection that writes to the residual stream."""
        return f"{self.path}.{self.writer}"


ATTENTION = BlockNames("self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj", counted="k_proj")
MLP = BlockNames("mlp", ("gate_proj", "up_proj"), "down_proj", counted="up_proj")
BLOCKS = {"attention": ATTENTION, "mlp": MLP}
PROJECTIONS = (*ATTENTION.paths, *MLP.paths)
"""Names within the layer of all projections, such as `self_attn.q_proj`."""
PROJECTION_NAMES = (*ATTENTION.names, *MLP.names)
LAYERS, ROTARY, NORM, HEAD = "model.layers", "model.rotary_emb", "model.norm", "lm_head"
"""Names of modules of the whole model: decoder layers, rotary positions, final norm, output head."""
EMBEDDINGS, FINAL_NORM, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", f"{NORM}.weight", f"{HEAD}.weight"
"""Names of the weights outside the layers."""
ATTENTION_NORM, MLP_NORM = "input_layernorm", "post_attention_layernorm"
"""Names of the norms before the blocks of a layer."""
QUERY_NORM, KEY_NORM = f"{ATTENTION.path}.q_norm", f"{ATTENTION.path}.k_norm"
"""Names of the norms over each query and key, which Qwen3 has. All heads share their weights."""


class Unit(NamedTuple):
    """What pruning removes at once.

    Attributes:
        title: Name in messages.
        block: The block of a layer whose groups are the units, a key of `BLOCKS`; None if a unit is a whole layer.
            It determines the tensor slices of a unit, and its cost, which is their number of parameters.
        config_sizes: Keys of the model's config that count the units.
        config_lists: Keys of the model's config that may hold a list with one entry per unit.
        in_cache: How the KV cache changes when a unit is removed: a `narrower` layer, `same`, or one layer `fewer`.
    """

    title: str
    block: str | None
    config_sizes: tuple[str, ...]
    config_lists: tuple[str, ...] = ()
    in_cache: str = "same"


_LISTS_OF_LAYERS = (
    "layer_types", "mlp_layer_types", "no_rope_layers", "layer_rope_theta", "intermediate_size",
    "num_attention_heads_per_layer",
)  # fmt: skip
KV_GROUP, MLP_CHANNEL, LAYER = "kv_group", "mlp_channel", "layer"
UNITS = {
    KV_GROUP: Unit("KV group", "attention", ("num_key_value_heads", "num_attention_heads"), in_cache="narrower"),
    MLP_CHANNEL: Unit("MLP channel", "mlp", ("intermediate_size",)),
    LAYER: Unit("layer", None, ("num_hidden_layers",), _LISTS_OF_LAYERS, in_cache="fewer"),
}
"""The units that a method may remove, by their names in the config. A further unit is one more entry."""
GROUP_UNITS = tuple(name for name, unit in UNITS.items() if unit.block)
"""Units that are groups of a block. A method removes these by default."""
FIRST_SLIDING_LAYER = "max_window_layers"
"""Key of the model's config (Qwen2, Qwen3): number of first layers without sliding window."""
DIFFERING_LAYERS = "per_layer_config"
"""Key of the model's config (any model whose layers differ): other values of some keys, by number of the layer."""
HEADS_NEED_NOT_DIVIDE = ("mistral", "qwen2", "qwen3")
"""Values of `model_type` whose stock config allows any number of heads. Others require a divisor of the hidden size."""
