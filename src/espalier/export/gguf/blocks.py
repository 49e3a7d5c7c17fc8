"""Blocks of a GGUF file, and stubs for removed attention and MLPs that llama.cpp cannot load as missing.

llama.cpp ignores the attention of a block without an MLP, or aborts if it is the last block. It does not load a file
whose first block has no heads. A stub has the smallest possible size and zero weights, so it adds exactly zero to the
residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.export.gguf.source import LayerShape

STUB_WIDTH = 32


@dataclass(frozen=True)
class FileBlock:
    """One block of the file.

    Attributes:
        layer: Number of the layer of the model that the block is made from.
        n_heads: Number of query heads in the file.
        n_kv_heads: Number of key/value heads in the file.
        n_ff: Number of MLP channels in the file.
        attention_stub: Whether the attention is a stub: one head of zeros.
        mlp_stub: Whether the MLP is a stub: `STUB_WIDTH` channels of zeros.
        n_padded: Number of MLP channels of zeros that pad the width to a multiple.
    """

    layer: int
    n_heads: int
    n_kv_heads: int
    n_ff: int
    attention_stub: bool
    mlp_stub: bool
    n_padded: int


def lay_out(layers: Sequence[LayerShape], width_multiple: int) -> list[FileBlock]:
    """Return the blocks of the file.

    A layer without attention and MLP is left out, unless the bias of an output projection remains. That bias is added
    to each token, so the layer becomes a block of zeros with the bias. If all layers are empty, the first one is kept.

    Args:
        layers: Sizes of the layers of the model.
        width_multiple: MLP widths are padded with zeros to a multiple of this number.
    """
    kept = [index for index, sizes in enumerate(layers) if _adds_anything(sizes)] or [0]
    return [_block(index, layers[index], width_multiple, is_first=index == kept[0]) for index in kept]


def _adds_anything(sizes: LayerShape) -> bool:
    return bool(sizes.n_heads or sizes.n_ff or sizes.has_attention_bias or sizes.has_mlp_bias)


def _block(index: int, sizes: LayerShape, multiple: int, *, is_first: bool) -> FileBlock:
    attention_stub = not sizes.n_heads and (is_first or sizes.has_attention_bias)
    n_ff = -(-sizes.n_ff // multiple) * multiple
    return FileBlock(
        layer=index,
        n_heads=1 if attention_stub else sizes.n_heads,
        n_kv_heads=1 if attention_stub else sizes.n_kv_heads,
        n_ff=n_ff or STUB_WIDTH,
        attention_stub=attention_stub,
        mlp_stub=not sizes.n_ff,
        n_padded=n_ff - sizes.n_ff,
    )
