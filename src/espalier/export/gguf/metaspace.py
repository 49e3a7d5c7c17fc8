"""Tokenizers that mark spaces with a visible character, as SentencePiece does (Llama 2, Mistral).

For these tokenizers llama.cpp has no list of merges. It has a score for each token, and repeatedly merges the two
neighbours that together are the token with the highest score. Two neighbours that are in no merge of the tokenizer can
be merged too.

With score = -(rank of the merge that makes the token), the result is the same as with the list of merges if each token
that a merge makes is the encoding of its own text. Reason: once a stretch of text becomes one token, all merges inside
it are those of the stretch alone. The last of them always joins the same two parts, so no other pair of neighbours can
make the token. `scores` also accepts a token that is not the encoding of its own text if all pairs of tokens that could
make it are merges of the tokenizer.
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
    """Return whether a space is put before a text, and descriptions of texts before which only llama.cpp puts one.

    Args:
        content: Content of tokenizer.json, as the loaded tokenizer writes it.

    Raises:
        UserError: If the normalizer and the pre-tokenizer are not those of SentencePiece.
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
    """Return the score of each token. Tokens that no merge makes get a lower score than all others.

    Args:
        tokenizer: The loaded tokenizer.
        content: As in `prefix_and_differences`.
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
    """Raise an error if llama.cpp could make a token where the tokenizer does not.

    It could from parts that the tokenizer never merges, or across a split of the pre-tokenizer.
    """
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
    """Return whether the pre-tokenizer splits a token's text. llama.cpp does not split, so it would merge the parts."""
    if tokenizer.pre_tokenizer is None:
        return False
    pieces: Sequence[Any] = tokenizer.pre_tokenizer.pre_tokenize_str(token)
    return token not in {piece for piece, _ in pieces} and token not in {
        piece.removeprefix(SPACE) for piece, _ in pieces
    }


def _isolates(part: Part) -> bool:
    return bool(part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"])
