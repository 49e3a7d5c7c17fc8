"""Metadata of a GGUF file about its model: sizes, norms and position embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gguf

from espalier.errors import UserError
from espalier.export.gguf.architecture import FileArchitecture
from espalier.export.gguf.blocks import FileBlock
from espalier.export.gguf.rope import check_rope
from espalier.export.gguf.source import Source
from espalier.export.gguf.tensors import FILE_TYPES
from espalier.models.architecture import EMBEDDINGS


def check_config(config: Any) -> None:
    """Check that a GGUF file can express the config.

    Raises:
        UserError: If it cannot. The message names the setting.
    """
    check_rope(config)
    if config.hidden_act != "silu":
        raise UserError(f"config.json: hidden_act {config.hidden_act!r} is not silu, the only one of GGUF's "
                        "architectures; export to transformers instead")  # fmt: skip


def gguf_context_length(config: Any) -> int:
    """Return the context length, in tokens, up to which the file computes the same as the model.

    The architectures of the files have no sliding window. For texts up to the length of the window, full attention
    gives the same result.
    """
    longest = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    slides = config.model_type == "mistral" or "sliding_attention" in (getattr(config, "layer_types", None) or [])
    return min(longest, int(window)) if window and slides else longest


def write_metadata(
    writer: gguf.GGUFWriter,
    source: Source,
    blocks: Sequence[FileBlock],
    architecture: FileArchitecture,
    *,
    name: str,
    gguf_type: str,
) -> None:
    """Add the metadata of the model to a file. `Vocabulary.write` adds that of the tokenizer."""
    config, head_dim = source.config, source.head_dim
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[gguf_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(len(blocks))
    writer.add_context_length(gguf_context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(source.shapes[EMBEDDINGS][0])
    if architecture.has_layer_sizes:
        writer.add_head_count([block.n_heads for block in blocks])
        writer.add_head_count_kv([block.n_kv_heads for block in blocks])
        writer.add_feed_forward_length([block.n_ff for block in blocks])
    else:
        writer.add_head_count(blocks[0].n_heads)
        writer.add_head_count_kv(blocks[0].n_kv_heads)
        writer.add_feed_forward_length(blocks[0].n_ff)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if check_rope(config) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))
