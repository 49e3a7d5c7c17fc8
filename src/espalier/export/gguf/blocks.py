"""Which blocks a file has, and what stands in for those that are gone.

In llama.cpp a block without an MLP drops its attention too (or aborts, if it is the last), and a file whose first
block has no heads does not load. Where such a block would be, zero weights of the smallest size stand in, which add
exactly zero to the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.export.gguf.source import LayerShape

STUB_WIDTH = 32


@dataclass(frozen=True)
class Block:
    """A block of the file.

    Attributes:
        layer: Number of the layer in the folder that it is made from.
        n_heads: Query heads in the file.
        n_kv_heads: Key/value heads in the file.
        n_ff: MLP channels in the file.
        attention_stub: Whether its attention is one head of zeros.
        mlp_stub: Whether its MLP is zeros.
        n_padded: MLP channels of zeros that were added to reach a multiple.
    """

    layer: int
    n_heads: int
    n_kv_heads: int
    n_ff: int
    attention_stub: bool
    mlp_stub: bool
    n_padded: int


def lay_out(layers: Sequence[LayerShape], width_multiple: int) -> list[Block]:
    """Decide the blocks of the file.

    A layer without attention and MLP is left out. What remains of it may be the bias of an output projection, which
    is added for every token: then the block stays, as zeros with that bias.

    Args:
        layers: Sizes of the layers in the folder.
        width_multiple: MLP widths are padded with zeros to a multiple of this.
    """
    kept = [index for index, sizes in enumerate(layers) if _adds_anything(sizes)] or [0]
    return [_block(index, layers[index], width_multiple, is_first=index == kept[0]) for index in kept]


def _adds_anything(sizes: LayerShape) -> bool:
    return bool(sizes.n_heads or sizes.n_ff or sizes.has_attention_bias or sizes.has_mlp_bias)


def _block(index: int, sizes: LayerShape, multiple: int, *, is_first: bool) -> Block:
    attention_stub = not sizes.n_heads and (is_first or sizes.has_attention_bias)
    n_ff = -(-sizes.n_ff // multiple) * multiple
    return Block(
        layer=index,
        n_heads=1 if attention_stub else sizes.n_heads,
        n_kv_heads=1 if attention_stub else sizes.n_kv_heads,
        n_ff=n_ff or STUB_WIDTH,
        attention_stub=attention_stub,
        mlp_stub=not sizes.n_ff,
        n_padded=n_ff - sizes.n_ff,
    )
