"""Write a model folder as a GGUF file. No incomplete file, and no file that fails the check, is left behind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gguf
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from espalier.errors import UserError
from espalier.export.gguf.architecture import FileArchitecture, file_architecture
from espalier.export.gguf.blocks import FileBlock, lay_out
from espalier.export.gguf.check import check_file, llama_cpp_version
from espalier.export.gguf.metadata import check_config, gguf_context_length, write_metadata
from espalier.export.gguf.source import Source, open_source
from espalier.export.gguf.tensors import FILE_TYPES, Tensor, fallbacks, tensors_of
from espalier.export.gguf.vocabulary import Vocabulary, describe
from espalier.files import atomic_file, read_json, write_json
from espalier.models.architecture import EMBEDDINGS
from espalier.progress import Progress

# Q8_0 quantises blocks of 32 elements of a row. A matrix whose rows are no multiple of 32 is stored as F16 instead.
# F16 files get the same widths: other types are made from them, and llama.cpp computes them faster.
WIDTH_MULTIPLE = {"F32": 1, "F16": 32, "Q8_0": 32}

logger = logging.getLogger(__name__)


def export_gguf(folder: str | Path, output: str | Path, *, gguf_type: str, name: str) -> dict[str, Any]:
    """Write a model as one GGUF file, and beside it `{output}.json` with a description and the results of the check.

    If llama-cpp-python is installed, a new process loads the file and compares ids with the tokenizer and logits with
    the model. A file that fails this check is removed. If the check could not run, the log and the JSON file say so.

    Args:
        folder: Folder of a pruned model (`checkpoints/{model}/{name}`) or of an unpruned model.
        output: The GGUF file to write.
        gguf_type: `F32`, `F16` or `Q8_0`; norms and biases are always F32.
        name: Name of the model in the file.

    Returns:
        The content of the JSON file.

    Raises:
        UserError: If GGUF cannot express the model or its tokenizer, or the file fails the check.
    """
    if gguf_type not in FILE_TYPES:
        raise UserError(f"export.gguf_type: got {gguf_type!r}; allowed: {', '.join(FILE_TYPES)}")
    source = open_source(folder)
    check_config(source.config)
    # The config of the base model selects the tokenizer class that the evaluation used.
    tokenizer = AutoTokenizer.from_pretrained(folder, config=source.config, local_files_only=True)
    blocks = lay_out(source.layers(), WIDTH_MULTIPLE[gguf_type])
    architecture = file_architecture(source, blocks)
    vocabulary = describe(tokenizer, source.shapes[EMBEDDINGS][0], _other_eos(Path(folder), tokenizer))
    tensors = tensors_of(source, blocks, architecture, gguf_type)
    facts = _facts(source, blocks, architecture, tensors, vocabulary, gguf_type)
    _tell(facts)
    with atomic_file(output) as temporary:
        _write_file(temporary, source, blocks, architecture, tensors, vocabulary, gguf_type=gguf_type, name=name)
        facts["n_bytes"] = temporary.stat().st_size
        facts["llama_cpp"] = check_file(temporary, source, tokenizer, vocabulary, gguf_type)
    write_json(f"{output}.json", facts)
    return facts


def _write_file(
    path: Path,
    source: Source,
    blocks: list[FileBlock],
    architecture: FileArchitecture,
    tensors: list[Tensor],
    vocabulary: Vocabulary,
    *,
    gguf_type: str,
    name: str,
) -> None:
    """Write the header and the metadata, then the tensors one at a time."""
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(path, architecture.name)
    try:
        write_metadata(writer, source, blocks, architecture, name=name, gguf_type=gguf_type)
        vocabulary.write(writer)
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, tensor.shape, "float32", tensor.n_bytes, raw_dtype=tensor.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with Progress(f"writing {name} as {gguf_type}", total=sum(t.n_bytes for t in tensors), unit="B") as progress:
            for tensor in tensors:
                writer.write_tensor_data(tensor.content())
                progress.advance(tensor.n_bytes)
    finally:
        writer.close()


def _facts(
    source: Source,
    blocks: list[FileBlock],
    architecture: FileArchitecture,
    tensors: list[Tensor],
    vocabulary: Vocabulary,
    gguf_type: str,
) -> dict[str, Any]:
    """Return the content of the JSON file, except the size of the GGUF file and the results of the check."""
    kept = {block.layer for block in blocks}
    return {
        "architecture": architecture.name,
        "type": gguf_type,
        "n_blocks": len(blocks),
        "context_length": gguf_context_length(source.config),
        "max_position_embeddings": source.config.max_position_embeddings,
        "left_out_layers": [index for index in range(source.config.num_hidden_layers) if index not in kept],
        "attention_stubs": [block.layer for block in blocks if block.attention_stub],
        "mlp_stubs": [block.layer for block in blocks if block.mlp_stub],
        "n_padded_mlp_channels": sum(block.n_padded for block in blocks),
        "stored_as_f16": fallbacks(tensors, gguf_type),
        "tokenizer": {"model": vocabulary.model, "pre": vocabulary.pre, "other_ids_for": vocabulary.differences},
    }


def _tell(facts: dict[str, Any]) -> None:
    for key, what in (
        ("left_out_layers", "layers without attention and MLP are left out"),
        ("attention_stubs", "layers whose missing attention is one head of zeros"),
        ("mlp_stubs", "layers whose missing MLP is 32 channels of zeros"),
        ("n_padded_mlp_channels", "MLP channels of zeros fill widths up to a multiple of 32"),
        ("stored_as_f16", "matrices whose rows are no multiple of 32 are stored as F16"),
    ):
        if facts[key]:
            logger.info("%s: %s", what, len(facts[key]) if key == "stored_as_f16" else facts[key])
    if facts["context_length"] < facts["max_position_embeddings"]:
        logger.info(
            "context length %d, the sliding window, instead of %d: GGUF's %s architecture has full attention only",
            facts["context_length"],
            facts["max_position_embeddings"],
            facts["architecture"],
        )
    for difference in facts["tokenizer"]["other_ids_for"]:
        logger.info("llama.cpp gives other ids for %s", difference)
    if llama_cpp_version() is None:
        logger.warning("not checked with llama.cpp: llama-cpp-python is not installed (requirements-llama.txt)")


def _other_eos(folder: Path, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the first further token that ends a generation, besides the tokenizer's EOS, or None.

    Chat models often have such a token in generation_config.json.
    """
    path = folder / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    others = [
        token
        for token in (found if isinstance(found, list) else [found])
        if token not in (None, tokenizer.eos_token_id)
    ]
    return others[0] if others else None
