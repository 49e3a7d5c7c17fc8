"""The architecture of a GGUF file: a stock one if all layers have one shape, else `deci`.

`deci` is the only architecture of llama.cpp with layers of different sizes. A stock architecture is what other tools
expect. It is chosen for a folder whose config has one shape for all layers, if llama.cpp loads this shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.export.gguf.blocks import FileBlock
from espalier.export.gguf.source import Source


@dataclass(frozen=True)
class FileArchitecture:
    """An architecture of llama.cpp.

    Attributes:
        name: Name in the file.
        rotates_neighbours: Whether rotary embeddings rotate elements 2i and 2i + 1 of a head, instead of i and
            i + head_dim / 2 as in transformers.
        has_layer_sizes: Whether head counts and MLP widths are lists with one entry per layer.
        needs_all_heads: Whether the heads together must be as wide as the residual stream. llama.cpp loads no `qwen2`
            that lost heads.
    """

    name: str
    rotates_neighbours: bool
    has_layer_sizes: bool = False
    needs_all_heads: bool = False


DECI = FileArchitecture("deci", rotates_neighbours=True, has_layer_sizes=True)
STOCK = {
    "llama": FileArchitecture("llama", rotates_neighbours=True),
    "mistral": FileArchitecture("llama", rotates_neighbours=True),
    "qwen2": FileArchitecture("qwen2", rotates_neighbours=False, needs_all_heads=True),
    "qwen3": FileArchitecture("qwen3", rotates_neighbours=False),
}
"""Stock architectures by `model_type`."""


def file_architecture(source: Source, blocks: Sequence[FileBlock]) -> FileArchitecture:
    """Return the architecture of the file of a model folder."""
    shapes = {(block.n_heads, block.n_kv_heads, block.n_ff) for block in blocks}
    has_stubs = any(block.attention_stub or block.mlp_stub for block in blocks)
    if not source.is_stock or len(shapes) > 1 or has_stubs:
        return DECI
    stock = STOCK[source.config.model_type]
    has_all_heads = blocks[0].n_heads * source.head_dim == source.config.hidden_size
    return stock if has_all_heads or not stock.needs_all_heads else DECI
