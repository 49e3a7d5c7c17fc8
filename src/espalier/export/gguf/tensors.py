"""The tensors of a GGUF file.

Names, shapes and types of all tensors are known first. The content of each tensor is read when it is written, so that
only one is in memory.

Rotary embeddings rotate pairs of elements of a head: i and i + head_dim / 2 in transformers, and elements 2i and 2i + 1
in some architectures of llama.cpp. For these, the rows of `q_proj` and `k_proj`, and their biases, are put into
llama.cpp's order. Attention scores are sums over the elements of a head, so they do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import quant_shape_to_byte_shape, quantize

from espalier.errors import UserError
from espalier.export.gguf.architecture import FileArchitecture
from espalier.export.gguf.blocks import FileBlock
from espalier.export.gguf.rope import check_rope, frequency_factors
from espalier.export.gguf.source import Source
from espalier.models.architecture import (
    ATTENTION,
    ATTENTION_NORM,
    EMBEDDINGS,
    FINAL_NORM,
    KEY_NORM,
    LAYERS,
    MLP,
    MLP_NORM,
    OUTPUT_EMBEDDINGS,
    QUERY_NORM,
)

FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
MAX_FLOAT16 = float(np.finfo(np.float16).max)
Array = np.ndarray[Any, np.dtype[Any]]
Make = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file.

    Attributes:
        name: Name in the file.
        shape: (rows, columns) or (elements,).
        type: Type in which its elements are stored.
        make: Function that returns the content in the order of the file, float32.
    """

    name: str
    shape: tuple[int, ...]
    type: Type
    make: Make

    @property
    def byte_shape(self) -> tuple[int, ...]:
        """Shape of the stored content, with the last dimension in bytes."""
        return tuple(int(size) for size in quant_shape_to_byte_shape(self.shape, self.type))

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        size = {Type.F32: 4, Type.F16: 2}.get(self.type)
        return int(np.prod(self.shape)) * size if size else int(np.prod(self.byte_shape))

    def content(self) -> Array:
        """Return the content, converted to the stored type.

        Raises:
            UserError: If a value is not finite, or too large for float16.
            RuntimeError: If the content does not have the expected shape.
        """
        values = self.make()
        if tuple(values.shape) != self.shape:
            raise RuntimeError(f"{self.name}: has shape {tuple(values.shape)} instead of {self.shape}")
        if not bool(torch.isfinite(values).all()):
            raise UserError(f"{self.name}: has values that are not finite; check the model")
        largest = float(values.abs().max()) if values.numel() else 0.0
        if self.type == Type.F16 and largest > MAX_FLOAT16:
            raise UserError(f"{self.name}: its largest value {largest:.4g} does not fit float16; export as F32")
        return np.ascontiguousarray(quantize(np.ascontiguousarray(values.numpy()), self.type))


def tensors_of(
    source: Source, blocks: Sequence[FileBlock], architecture: FileArchitecture, gguf_type: str
) -> list[Tensor]:
    """Return the tensors of a file, in the order in which they are written."""
    return [_typed(name, shape, make, gguf_type) for name, shape, make in _all(source, blocks, architecture)]


def fallbacks(tensors: Sequence[Tensor], gguf_type: str) -> list[str]:
    """Return the names of the matrices whose rows do not fill whole blocks of the type; they are stored as F16."""
    return [tensor.name for tensor in tensors if len(tensor.shape) == 2 and tensor.type != Type[gguf_type]]


UntypedTensor = tuple[str, tuple[int, ...], Make]


def _typed(name: str, shape: tuple[int, ...], make: Make, gguf_type: str) -> Tensor:
    if len(shape) == 1:
        return Tensor(name, shape, Type.F32, make)
    fits = shape[-1] % gguf.GGML_QUANT_SIZES[Type[gguf_type]][0] == 0
    return Tensor(name, shape, Type[gguf_type] if fits else Type.F16, make)


def _all(source: Source, blocks: Sequence[FileBlock], architecture: FileArchitecture) -> Iterator[UntypedTensor]:
    yield _plain(source, "token_embd.weight", EMBEDDINGS)
    if check_rope(source.config) == "llama3":
        factors = frequency_factors(source.config, source.head_dim)
        yield "rope_freqs.weight", tuple(factors.shape), lambda: factors
    for number, block in enumerate(blocks):
        for name, shape, make in [*_attention(source, block, architecture), *_mlp(source, block)]:
            yield f"blk.{number}.{name}", shape, make
    yield _plain(source, "output_norm.weight", FINAL_NORM)
    if not source.config.tie_word_embeddings:
        yield _plain(source, "output.weight", OUTPUT_EMBEDDINGS)


def _attention(source: Source, block: FileBlock, architecture: FileArchitecture) -> Iterator[UntypedTensor]:
    prefix, hidden = f"{LAYERS}.{block.layer}.", source.config.hidden_size
    if block.attention_stub:
        yield _ones("attn_norm.weight", hidden)
        for name in ("attn_q", "attn_k", "attn_v"):
            yield _zeros(f"{name}.weight", source.head_dim, hidden)
        yield _zeros("attn_output.weight", hidden, source.head_dim)
    elif block.n_heads:
        yield _plain(source, "attn_norm.weight", f"{prefix}{ATTENTION_NORM}.weight")
        for name, reader, rotated in zip(
            ("attn_q", "attn_k", "attn_v"), ATTENTION.paths, (True, True, False), strict=False
        ):
            moved = rotated and architecture.rotates_neighbours
            for part in ("weight", "bias"):
                if f"{prefix}{reader}.{part}" in source.shapes:
                    yield _projection_rows(source, f"{name}.{part}", f"{prefix}{reader}.{part}", rotated=moved)
        for name, norm in (("attn_q_norm", QUERY_NORM), ("attn_k_norm", KEY_NORM)):
            if f"{prefix}{norm}.weight" in source.shapes:
                yield _plain(source, f"{name}.weight", f"{prefix}{norm}.weight")
        yield _plain(source, "attn_output.weight", f"{prefix}{ATTENTION.writer_path}.weight")
    if block.n_heads and f"{prefix}{ATTENTION.writer_path}.bias" in source.shapes:
        yield _plain(source, "attn_output.bias", f"{prefix}{ATTENTION.writer_path}.bias")


def _mlp(source: Source, block: FileBlock) -> Iterator[UntypedTensor]:
    prefix, hidden = f"{LAYERS}.{block.layer}.", source.config.hidden_size
    if block.mlp_stub:
        yield _ones("ffn_norm.weight", hidden)
        yield _zeros("ffn_gate.weight", block.n_ff, hidden)
        yield _zeros("ffn_up.weight", block.n_ff, hidden)
        yield _zeros("ffn_down.weight", hidden, block.n_ff)
    else:
        yield _plain(source, "ffn_norm.weight", f"{prefix}{MLP_NORM}.weight")
        for name, path, dim in zip(("ffn_gate", "ffn_up", "ffn_down"), MLP.paths, (0, 0, 1), strict=True):
            yield _padded_tensor(source, f"{name}.weight", f"{prefix}{path}.weight", dim, block.n_padded)
            if dim == 0 and f"{prefix}{path}.bias" in source.shapes:
                yield _padded_tensor(source, f"{name}.bias", f"{prefix}{path}.bias", 0, block.n_padded)
    if f"{prefix}{MLP.writer_path}.bias" in source.shapes:
        yield _plain(source, "ffn_down.bias", f"{prefix}{MLP.writer_path}.bias")


def _plain(source: Source, name: str, origin: str) -> UntypedTensor:
    if origin not in source.shapes:
        raise UserError(f"{source.folder}: has no tensor {origin}; export or stage the model again")
    return name, source.shapes[origin], lambda: source.read(origin)


def _projection_rows(source: Source, name: str, origin: str, *, rotated: bool) -> UntypedTensor:
    make = (lambda: interleave(source.read(origin), source.head_dim)) if rotated else (lambda: source.read(origin))
    return name, source.shapes[origin], make


def interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorder the rows of each head from (0, 1, ...) to (0, head_dim / 2, 1, head_dim / 2 + 1, ...).

    Args:
        rows: Weights (heads * head_dim, hidden) or a bias (heads * head_dim,).
        head_dim: Size of a head.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])  # (heads, half, pair, ...)
    return halves.transpose(1, 2).reshape(rows.shape)


def _padded_tensor(source: Source, name: str, origin: str, dim: int, n_padded: int) -> UntypedTensor:
    shape = list(source.shapes[origin])
    shape[dim] += n_padded

    def make() -> torch.Tensor:
        values = source.read(origin)
        if not n_padded:
            return values
        missing = list(values.shape)
        missing[dim] = n_padded
        return torch.cat([values, values.new_zeros(missing)], dim=dim)

    return name, tuple(shape), make


def _zeros(name: str, *shape: int) -> UntypedTensor:
    return name, shape, lambda: torch.zeros(shape)


def _ones(name: str, size: int) -> UntypedTensor:
    return name, (size,), lambda: torch.ones(size)
