"""The table of architectures: which tensors hold the prunable groups of a decoder layer.

Everything else that needs the name of a projection looks it up here. All supported families (Llama, Mistral, Qwen2,
Qwen3 and the like) name their projections alike. Exported folders carry this file, so it imports only the standard
library.

A KV group is a key/value head with the query heads that share it. An MLP channel is a hidden unit of the MLP. In every
projection of a block the groups are equal, consecutive slices: rows of the projections that read the residual stream
(and the biases beside them), columns of the one that writes to it. The bias of that one belongs to no group.
"""

from __future__ import annotations

from typing import NamedTuple


class BlockNames(NamedTuple):
    """Names of a block of a decoder layer.

    Attributes:
        path: Name of the module within the layer.
        readers: Projections that read the residual stream; their rows belong to groups.
        writer: The projection that writes to it; its columns belong to groups, its bias to none.
        counted: The reader with the same number of rows for each group: one head, or one channel.
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
        """Names of all projections within the layer, such as `self_attn.q_proj`; the writer last."""
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
"""Names of the projections within a layer."""
PROJECTION_NAMES = (*ATTENTION.names, *MLP.names)
LAYERS, ROTARY, NORM, HEAD = "model.layers", "model.rotary_emb", "model.norm", "lm_head"
"""Modules of the whole model: decoder layers, rotary positions, final norm, output head."""
EMBEDDINGS, FINAL_NORM, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", f"{NORM}.weight", f"{HEAD}.weight"
"""Tensors outside the layers."""
ATTENTION_NORM, MLP_NORM = "input_layernorm", "post_attention_layernorm"
"""Norms before the blocks of a layer."""
