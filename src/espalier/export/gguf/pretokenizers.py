"""Which of llama.cpp's ways to split a text are those of a tokenizer.

llama.cpp has a name for each known pre-tokenizer and no way to be given a regular expression. A byte-level tokenizer is
recognised by its own expression; unknown ones are refused, since a wrong split changes ids silently. So is `tekken`
(Mistral Nemo): llama.cpp leaves combining marks out of words, the tokenizer does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from espalier.errors import UserError


class Split(NamedTuple):
    """How a byte-level tokenizer splits a text before it merges.

    Attributes:
        pattern: Its regular expression; `GPT2` where the tokenizers library has it built in.
        digits: Whether digits are split off one by one first.
        ignore_merges: Whether a piece that is a token is taken whole.
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
# ignore_merges goes with the name in llama.cpp, hence both in one key.
NAMES = {
    Split(GPT2, digits=False, ignore_merges=False): "gpt-2",
    Split(GPT2, digits=True, ignore_merges=False): "smollm",
    Split(LLAMA3, digits=False, ignore_merges=True): "llama-bpe",
    Split(LLAMA3, digits=False, ignore_merges=False): "smaug-bpe",
    Split(QWEN2, digits=False, ignore_merges=False): "qwen2",
}

Part = Mapping[str, Any]


def parts_of(pre_tokenizer: Part | None) -> list[Part]:
    """Return the steps of a pre-tokenizer, as tokenizer.json has them."""
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def byte_level_name(parts: Sequence[Part], *, ignore_merges: bool) -> str:
    """Return llama.cpp's name of the pre-tokenizer of a byte-level BPE.

    Raises:
        UserError: If it has none.
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
    kinds = [part["type"] for part in first]
    if kinds == ["Split"] and not last["use_regex"] and _is_cover(first[0]):
        return Split(first[0]["pattern"].get("Regex", ""), digits=False, ignore_merges=ignore_merges)
    if kinds in ([], ["Digits"]) and last["use_regex"] and all(part["individual_digits"] for part in first):
        return Split(GPT2, digits=bool(first), ignore_merges=ignore_merges)
    return None


def _is_cover(part: Part) -> bool:
    """Say whether matches become the pieces; the expressions match everything, so nothing lies between."""
    return (part["behavior"], part["invert"]) in {("Isolated", False), ("Removed", True)}


def _describe(parts: Sequence[Part]) -> str:
    return " + ".join(
        f"{part['type']} {part.get('pattern', {}).get('Regex', '')!r}".removesuffix(" ''") for part in parts
    )
