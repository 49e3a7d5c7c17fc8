"""Conversion of a tokenizer to the tokenizer metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gguf
from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from espalier.errors import UserError
from espalier.export.gguf import metaspace
from espalier.export.gguf.pretokenizers import byte_level_name, parts_of

NOT_STRIPPED = (
    "spaces and words beside special tokens: llama.cpp takes a special token wherever it stands, as it stands"
)
NOT_NORMALISED = "text that Unicode's NFC would change: llama.cpp does not normalise"


@dataclass(frozen=True)
class Vocabulary:
    """Tokenizer metadata of a GGUF file.

    Attributes:
        model: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: Text of each token, by id.
        types: Type of each token, by id.
        merges: Pairs in the order of their ranks, for `gpt2`; else None.
        scores: Score of each token, by id, for `llama`; else None.
        add_bos: Whether the tokenizer puts the BOS token before a text.
        add_eos: Whether the tokenizer puts the EOS token after a text.
        add_space_prefix: Whether the tokenizer puts a space before a text.
        special: Ids of the special tokens that exist: `bos`, `eos`, `eot`, `unknown`, `padding`.
        chat_template: Jinja template, or None.
        differences: Descriptions of texts for which llama.cpp is known to give other ids.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str] | None
    scores: list[float] | None
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    special: dict[str, int]
    chat_template: str | None
    differences: list[str] = field(default_factory=list)

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add the tokenizer to the metadata of a file."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        for name, token in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(self.add_space_prefix)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def describe(tokenizer: PreTrainedTokenizerBase, n_rows: int, other_eos: int | None = None) -> Vocabulary:
    """Return the GGUF metadata of a tokenizer.

    Args:
        tokenizer: The tokenizer that transformers loads from the folder.
        n_rows: Number of rows of the embedding matrix; a row without a token gets a placeholder name.
        other_eos: A second token that ends a generation (generation_config.json may have one), or None.

    Raises:
        UserError: If llama.cpp is not known to give the same ids as the tokenizer.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(f"tokenizer {type(tokenizer).__name__} has no tokenizer.json; save it again with a current "
                        "transformers, or export to transformers instead")  # fmt: skip
    backend = tokenizer.backend_tokenizer
    content = json.loads(backend.to_str())
    model, steps = content["model"], parts_of(content["pre_tokenizer"])
    _check_model(model)
    differences = _differences(content)
    add_bos, add_eos = _added(tokenizer)
    content["added_tokens"] = _with_rows(content["added_tokens"], n_rows)
    common: dict[str, Any] = {
        "tokens": _tokens(content, n_rows),
        "types": _types(content, n_rows),
        "add_bos": add_bos,
        "add_eos": add_eos,
        "special": _special(tokenizer, other_eos, n_rows),
        "chat_template": _chat_template(tokenizer),
    }
    if steps and steps[-1]["type"] == "ByteLevel":
        _check_byte_level_normalizer(content["normalizer"])
        pre = byte_level_name(steps, ignore_merges=bool(model.get("ignore_merges")))
        merges = [" ".join(pair) for pair in model["merges"]]
        return Vocabulary(
            "gpt2", pre, merges=merges, scores=None, add_space_prefix=False, differences=differences, **common
        )
    prefix, more = metaspace.prefix_and_differences(content)
    scores = metaspace.scores(backend, content, common["tokens"])
    return Vocabulary("llama", "default", merges=None, scores=scores, add_space_prefix=prefix,
                      differences=differences + more, **common)  # fmt: skip


def _differences(content: Mapping[str, Any]) -> list[str]:
    strips = any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in content["added_tokens"])
    normalises = "NFC" in json.dumps(content["normalizer"])
    return [text for text, is_so in ((NOT_NORMALISED, normalises), (NOT_STRIPPED, strips)) if is_so]


def _check_model(model: Mapping[str, Any]) -> None:
    odd = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if model["type"] != "BPE" or odd:
        what = f"a {model['type']} tokenizer" + (f" with {', '.join(odd)}" if odd else "")
        raise UserError(
            f"tokenizer.json: {what} is not written to GGUF; allowed: byte-level BPE, and BPE in the manner of "
            "SentencePiece; export to transformers instead"
        )


def _check_byte_level_normalizer(normalizer: Mapping[str, Any] | None) -> None:
    if normalizer is not None and normalizer["type"] != "NFC":
        raise UserError(f"tokenizer.json: normalizer {normalizer['type']}, which llama.cpp does not have; export to "
                        "transformers instead")  # fmt: skip


def _with_rows(added: list[dict[str, Any]], n_rows: int) -> list[dict[str, Any]]:
    """Drop special tokens without an embedding row. A tokenizer class may add them; the model cannot read them."""
    return [token for token in added if token["id"] < n_rows or not token["special"]]


def _tokens(content: Mapping[str, Any], n_rows: int) -> list[str]:
    """Return the text of each id. Embeddings are often padded; rows without a token get a placeholder name.

    Raises:
        UserError: If an id has no embedding row, or two tokens have the same id or the same text.
    """
    pairs = [
        *content["model"]["vocab"].items(),
        *((token["content"], token["id"]) for token in content["added_tokens"]),
    ]
    by_id = {index: token for token, index in pairs}
    if max(by_id) >= n_rows:
        raise UserError(f"the tokenizer has ids up to {max(by_id)}, the embedding {n_rows} rows; the folder's files do "
                        "not belong together")  # fmt: skip
    if len(set(pairs)) != len(by_id) or len(set(by_id.values())) != len(by_id):
        raise UserError("tokenizer.json: two tokens have one id or one text; export to transformers instead")
    return [by_id.get(index, f"[UNUSED_ROW_{index}]") for index in range(n_rows)]


def _types(content: Mapping[str, Any], n_rows: int) -> list[TokenType]:
    types = [TokenType.UNUSED] * n_rows
    vocabulary = content["model"]["vocab"]
    for index in vocabulary.values():
        types[index] = TokenType.NORMAL
    if content["model"].get("byte_fallback"):
        for name in metaspace.BYTE_TOKENS:
            types[vocabulary.get(name, 0)] = TokenType.BYTE
    for token in content["added_tokens"]:
        types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    if (unknown := vocabulary.get(content["model"].get("unk_token"))) is not None:
        types[unknown] = TokenType.UNKNOWN
    return types


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Return whether the tokenizer puts BOS before and EOS after a text, by tokenising a text.

    Raises:
        UserError: If the tokenizer adds anything else.
    """
    plain = tokenizer("a", add_special_tokens=False).input_ids
    full = tokenizer("a").input_ids
    for add_bos in (False, True):
        for add_eos in (False, True):
            before = [tokenizer.bos_token_id] if add_bos else []
            if full == before + plain + ([tokenizer.eos_token_id] if add_eos else []):
                return add_bos, add_eos
    raise UserError(f"the tokenizer makes {full} of {plain}; llama.cpp can only add BOS before and EOS after a text")


def _special(tokenizer: PreTrainedTokenizerBase, other_eos: int | None, n_rows: int) -> dict[str, int]:
    """Return the ids of the special tokens.

    Without a `bos` llama.cpp would use token 11. A tokenizer without BOS therefore gets EOS as a placeholder.

    Raises:
        UserError: If the tokenizer has no EOS token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("the tokenizer has no EOS token, so that nothing would end a generation; set eos_token")
    bos = eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    found = {
        "bos": bos,
        "eos": eos,
        "eot": other_eos,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    return {name: int(token) for name, token in found.items() if token is not None and token < n_rows}


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the chat template. If there is no BOS token, hide the placeholder of `_special` from it."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template and tokenizer.bos_token_id is None and "bos_token" in template:
        return "{%- set bos_token = '' -%}" + str(template)
    return str(template) if template else None
