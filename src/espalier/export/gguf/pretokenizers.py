"""Names of pre-tokenizers in llama.cpp.

llama.cpp has a name for each pre-tokenizer that it knows, and does not accept a regular expression. The name for a
byte-level tokenizer is found by its regular expression. Unknown expressions raise an error, since a wrong split would
change ids without notice. `tekken` (Mistral Nemo) is not supported either: llama.cpp does not count combining marks as
part of a word, and the tokenizer does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from espalier.errors import UserError


class Split(NamedTuple):
    """Settings of a byte-level tokenizer that determine how it splits a text.

    Attributes:
        pattern: Regular expression of the pre-tokenizer; `GPT2` for the expression built into the tokenizers library.
        digits: Whether each digit is split off first.
        ignore_merges: Whether a piece that is a token is not split further.
    """

    pattern: str
    digits: bool
    ignore_merges: bool


GPT2 = "gpt2"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST
QWEN2 = _CONTRACTIONS + _WORDS + r"\p{N}" + _REST
# In llama.cpp the name also determines `ignore_merges`, so it is part of the key.
NAMES = {
    Split(GPT2, digits=False, ignore_merges=False): "gpt-2",
    Split(GPT2, digits=True, ignore_merges=False): "smollm",
    Split(LLAMA3, digits=False, ignore_merges=True): "llama-bpe",
    Split(LLAMA3, digits=False, ignore_merges=False): "smaug-bpe",
    Split(QWEN2, digits=False, ignore_merges=False): "qwen2",
}

Part = Mapping[str, Any]


def parts_of(pre_tokenizer: Part | None) -> list[Part]:
    """Return the steps of a pre-tokenizer in tokenizer.json."""
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def byte_level_name(parts: Sequence[Part], *, ignore_merges: bool) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a byte-level BPE tokenizer.

    Raises:
        UserError: If llama.cpp has no name for it.
    """
    split = _split(parts, ignore_merges)
    if split not in NAMES:
        raise UserError(
            f"tokenizer.json: the pre-tokenizer {_describe(parts)} (ignore_merges {str(ignore_merges).lower()}) is not "
            f"one that llama.cpp is known to have; known are those of {', '.join(NAMES.values())}; export to "
            "transformers instead"
        )
    return NAMES[split]


def _split(parts: Sequence[Part], ignore_merges: bool) -> Split | None:
    *first, last = parts
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    types = [part["type"] for part in first]
    if types == ["Split"] and not last["use_regex"] and _is_cover(first[0]):
        return Split(first[0]["pattern"].get("Regex", ""), digits=False, ignore_merges=ignore_merges)
    if types in ([], ["Digits"]) and last["use_regex"] and all(part["individual_digits"] for part in first):
        return Split(GPT2, digits=bool(first), ignore_merges=ignore_merges)
    return None


def _is_cover(part: Part) -> bool:
    """Return whether the pieces are the matches. The known expressions leave no text between matches."""
    return (part["behavior"], part["invert"]) in {("Isolated", False), ("Removed", True)}


def _describe(parts: Sequence[Part]) -> str:
    return " + ".join(
        f"{part['type']} {part.get('pattern', {}).get('Regex', '')!r}".removesuffix(" ''") for part in parts
    )
