"""Tokenizers over pieces with a visible space, as SentencePiece makes them (Llama 2, Mistral).

llama.cpp knows no list of merges for these. It merges the neighbours whose union is the token with the highest score,
wherever that is in the vocabulary. This is the same as a list of merges, with score = -rank of the token's merge, if
every token that has one is what its own text is encoded to: between fixed ends the merges inside a stretch of text are
those of the stretch alone, whose last two parts are unique, so no other pair of neighbours can make the token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from espalier.errors import UserError
from espalier.export.gguf.pretokenizers import Part, parts_of

SPACE = "\u2581"
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_PREPEND = {"type": "Prepend", "prepend": SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_UNMERGED = -1e6
_AT_START = "a text that begins with a space: llama.cpp puts one more before it"
_AFTER_SPECIAL = "text after a special token: llama.cpp puts a space before it"


def prefix_and_differences(content: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Say whether a space goes before a text, and where llama.cpp puts one that the tokenizer does not.

    Args:
        content: tokenizer.json, as the tokenizer in use would write it.

    Raises:
        UserError: If the steps before merging are not those of SentencePiece.
    """
    normalizer, parts = content["normalizer"], parts_of(content["pre_tokenizer"])
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    steps = [step for step in steps if step["type"] != "NFC"]
    if not parts and steps == [_PREPEND, _REPLACE]:
        return True, []
    if not parts and steps == [_REPLACE]:
        return False, []
    if parts and not steps and parts[0]["type"] == "Metaspace" and all(_isolates(part) for part in parts[1:]):
        scheme = parts[0]["prepend_scheme"]
        differences = {"never": [], "always": [_AT_START], "first": [_AT_START, _AFTER_SPECIAL]}[scheme]
        return scheme != "never", differences
    raise UserError(
        f"tokenizer.json: normalizer {normalizer} with pre-tokenizer {content['pre_tokenizer']} is not what llama.cpp "
        "does for SentencePiece tokenizers; export to transformers instead"
    )


def scores(tokenizer: Tokenizer, content: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """Return the score of each token; those without a merge get less than all others.

    Args:
        tokenizer: The tokenizer in use.
        content: As `prefix_and_differences`.
        tokens: Text of each id.

    Raises:
        UserError: If no scores reproduce the merges.
    """
    vocabulary = content["model"]["vocab"]
    if missing := [name for name in BYTE_TOKENS if name not in vocabulary]:
        raise UserError(f"tokenizer.json: lacks the byte token {missing[0]}, which llama.cpp needs for characters that "
                        "are no tokens; export to transformers instead")  # fmt: skip
    ranks: dict[str, int] = {}
    pairs = set()
    for rank, (left, right) in enumerate(content["model"]["merges"]):
        pairs.add((left, right))
        ranks.setdefault(left + right, rank)
    _check_merges(tokenizer, vocabulary, ranks, pairs)
    return [-float(ranks[token]) if token in ranks else _UNMERGED for token in tokens]


def _check_merges(
    tokenizer: Tokenizer, vocabulary: Mapping[str, int], ranks: Mapping[str, int], pairs: set[tuple[str, str]]
) -> None:
    """Refuse tokens that llama.cpp could make of other parts than the tokenizer does."""
    wrong = [
        token for token in ranks if len(tokenizer.model.tokenize(token)) != 1 and _other_parts(token, vocabulary, pairs)
    ]
    torn = [token for token in ranks if _is_torn(tokenizer, token)]
    if wrong or torn:
        raise UserError(
            f"tokenizer.json: llama.cpp would merge {len(wrong)} tokens that the tokenizer does not and {len(torn)} "
            f"across its splits (such as {(wrong + torn)[0]!r}); export to transformers instead"
        )


def _other_parts(token: str, vocabulary: Mapping[str, int], pairs: set[tuple[str, str]]) -> bool:
    halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
    return any(left in vocabulary and right in vocabulary and (left, right) not in pairs for left, right in halves)


def _is_torn(tokenizer: Tokenizer, token: str) -> bool:
    """Say whether a token runs across a split, so that llama.cpp, which does not split, would merge it."""
    if tokenizer.pre_tokenizer is None:
        return False
    pieces: Sequence[Any] = tokenizer.pre_tokenizer.pre_tokenize_str(token)
    return token not in {piece for piece, _ in pieces} and token not in {
        piece.removeprefix(SPACE) for piece, _ in pieces
    }


def _isolates(part: Part) -> bool:
    return bool(part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"])
