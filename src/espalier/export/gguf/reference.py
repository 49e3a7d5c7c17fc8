"""Logits of the model in a folder, computed in float32 with only the weights in use in memory.

This module implements the equations of Llama, Mistral, Qwen2 and Qwen3: RMSNorm before each block (in Qwen3 also over
each query and key), rotary position embeddings, grouped-query attention, SwiGLU. transformers would hold the whole
model in memory. The tests compare the logits with those of the pruned transformers model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from espalier.export.gguf.rope import check_rope, inverse_frequencies
from espalier.export.gguf.source import LayerShape, Source
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
from espalier.progress import Progress


def reference_logits(source: Source, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits of one sequence, (tokens, vocabulary), float32."""
    config = source.config
    hidden = source.read(EMBEDDINGS)[torch.tensor(ids)]  # (tokens, hidden)
    rotation = _rotation(source, len(ids))
    layers = source.layers()
    with Progress("computing reference logits", total=len(layers), unit="layers") as progress, torch.inference_mode():
        for index, sizes in enumerate(layers):
            layer = _Layer(source, index, sizes)
            hidden = hidden + layer.attention(hidden, *rotation)
            hidden = hidden + layer.mlp(hidden)
            progress.advance(1)
        hidden = _norm(hidden, source.read(FINAL_NORM), config.rms_norm_eps)
        head = EMBEDDINGS if config.tie_word_embeddings else OUTPUT_EMBEDDINGS
        return hidden @ source.read(head).T


class _Layer:
    """The attention and the MLP of one layer; weights are read when they are used."""

    def __init__(self, source: Source, index: int, sizes: LayerShape) -> None:
        self._source, self._sizes = source, sizes
        self._prefix = f"{LAYERS}.{index}."

    def attention(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Return the output of attention, (tokens, hidden); if attention was removed, only its output bias."""
        if not self._sizes.n_heads:
            return self._bias(ATTENTION.writer_path, hidden)
        hidden = self._norm(ATTENTION_NORM, hidden)
        n_tokens, head_dim = len(hidden), self._source.head_dim
        q, k, v = (
            self._linear(f"{ATTENTION.path}.{name}", hidden).view(n_tokens, -1, head_dim).transpose(0, 1)
            for name in ATTENTION.readers
        )  # (heads, tokens, head_dim)
        q, k = self._norm_if_present(QUERY_NORM, q), self._norm_if_present(KEY_NORM, k)
        group = self._sizes.n_heads // self._sizes.n_kv_heads
        q, k = (x * cos + _half_turned(x) * sin for x in (q, k))
        k, v = (x.repeat_interleave(group, dim=0) for x in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._linear(ATTENTION.writer_path, mixed.transpose(0, 1).reshape(n_tokens, -1))

    def mlp(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the output of the MLP, (tokens, hidden); if the MLP was removed, only its output bias."""
        if not self._sizes.n_ff:
            return self._bias(MLP.writer_path, hidden)
        hidden = self._norm(MLP_NORM, hidden)
        gate, up = (self._linear(f"{MLP.path}.{name}", hidden) for name in MLP.readers)
        return self._linear(MLP.writer_path, functional.silu(gate) * up)

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return _norm(hidden, self._source.read(f"{self._prefix}{name}.weight"), self._source.config.rms_norm_eps)

    def _norm_if_present(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return self._norm(name, values) if f"{self._prefix}{name}.weight" in self._source.shapes else values

    def _linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        result = values @ self._source.read(f"{self._prefix}{name}.weight").T
        return result + self._bias(name, result)

    def _bias(self, name: str, like: torch.Tensor) -> torch.Tensor:
        name = f"{self._prefix}{name}.bias"
        return self._source.read(name) if name in self._source.shapes else torch.zeros_like(like)


def _norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def _rotation(source: Source, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines of the rotary angles, (tokens, head_dim) each."""
    frequencies = inverse_frequencies(source.config, source.head_dim, check_rope(source.config))
    angles = torch.arange(n_tokens, dtype=torch.float32)[:, None] * frequencies[None, :]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _half_turned(values: torch.Tensor) -> torch.Tensor:
    first, second = values.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
