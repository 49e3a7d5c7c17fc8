"""Find documents that a model is made with in text that it is evaluated on.

A document overlaps with a text when both share 50 consecutive tokens. A document that is too short for that overlaps
when it lies in the text as a whole, but for its first and last token, which may be others where texts are joined.
Documents under 16 tokens are not compared: equal ones are found by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from espalier.errors import UserError

CALIBRATION = ("calibration", "calibrate")
WINDOW = 50
# A window may begin at the third token at the latest, so that other tokens where texts are joined hide nothing.
LONG = WINDOW + 2
SHORTEST = 16
_ANCHOR = SHORTEST - 2
_CHUNK = 1 << 18  # windows hashed at a time

Tokens = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]


class HeldOut:
    """Texts of an evaluation.

    Args:
        what: What they are, for messages.
        texts: Token lists.
        special: Ids of special tokens; dropped where a text begins or ends.
    """

    def __init__(self, what: str, texts: Iterable[Sequence[int] | Integers], special: Collection[int]) -> None:
        self.what = what
        self._texts = [_stripped(np.asarray(text, dtype=np.int64), special) for text in texts]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(text) for text in self._texts]

    @cached_property
    def windows(self) -> npt.NDArray[np.uint64]:
        """Sorted hashes of all windows of 50 tokens."""
        return np.unique(window_hashes(self.joined))

    @cached_property
    def joined(self) -> Tokens:
        """All texts in a row, with -1 after each."""
        apart = np.asarray([-1], dtype=np.int64)
        parts = [part for text in self._texts for part in (text, apart)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Compared:
    """How many documents were compared with texts of an evaluation, and in which way.

    Attributes:
        documents: What the documents are.
        documents_by_windows: Documents of which windows of 50 tokens were looked for.
        documents_as_wholes: Shorter documents, looked for as wholes.
        documents_too_short: Documents that were not looked for.
        held_out: What the texts of the evaluation are.
        texts: Number of those texts.
        texts_with_windows: Texts of 50 tokens and more. In others, only shorter documents can be found.
    """

    documents: str
    documents_by_windows: int
    documents_as_wholes: int
    documents_too_short: int
    held_out: str
    texts: int
    texts_with_windows: int

    @property
    def reasons(self) -> list[str]:
        """Why not everything was compared."""
        said = []
        if not self.documents_by_windows:
            said.append(f"{self.documents}: none has {LONG} tokens, so none was looked for by windows of {WINDOW}")
        if self.documents_too_short:
            said.append(f"{self.documents}: {self.documents_too_short} have fewer than {SHORTEST} tokens")
        if short := self.texts - self.texts_with_windows:
            said.append(f"{self.held_out}: {short} of {self.texts} have fewer than {WINDOW} tokens, so no windows")
        return said


def summarise(compared: Sequence[Compared]) -> dict[str, Any]:
    """Say what was compared and found, as JSON values, after nothing was refused.

    Returns:
        `shared_50_token_windows`: 0, or None where no windows were compared; `compared`: how many documents and texts
        in which way; `not_compared`: why not all were.
    """
    found = any(one.documents_by_windows and one.texts_with_windows for one in compared)
    return {
        "shared_50_token_windows": 0 if found else None,
        "compared": [asdict(one) for one in compared],
        "not_compared": list(dict.fromkeys(reason for one in compared for reason in one.reasons)),
    }


def document_tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, numbers: Sequence[int], n_tokens: int | None = None
) -> dict[int, Tokens]:
    """Tokenise documents without special tokens, so that they can be found within others.

    Args:
        texts: Documents.
        tokenizer: Tokenizer of the model.
        numbers: Which documents.
        n_tokens: Tokens of each that are used; so many are returned, but 52 at least where the document has them. None
            returns whole documents.
    """
    if not numbers:
        return {}
    chosen = [texts[number] for number in numbers]
    tokenised = tokenizer(chosen, add_special_tokens=False, verbose=False)["input_ids"]
    end = None if n_tokens is None else max(n_tokens, LONG)
    return {n: np.asarray(tokens[:end], dtype=np.int64) for n, tokens in zip(numbers, tokenised, strict=True)}


def check_disjoint(
    documents: Mapping[int, Tokens], held_out: HeldOut, *, name: str, use: tuple[str, str] = CALIBRATION
) -> Compared:
    """Refuse documents that overlap with text that models are evaluated on.

    Args:
        documents: Tokens of each document that a model is made with, without special tokens, by its number.
        held_out: Texts of the evaluation.
        name: What the documents are, for the record.
        use: Section of the config that names the text of the documents, and what they are for, for the message.

    Returns:
        How the documents were compared.

    Raises:
        UserError: Naming the first such document.
    """
    long = {number: tokens for number, tokens in documents.items() if len(tokens) >= LONG}
    short = {number: tokens for number, tokens in documents.items() if SHORTEST <= len(tokens) < LONG}
    for number, tokens in long.items():
        if _any_known(window_hashes(tokens), held_out.windows):
            raise _overlap(use, number, f"shares {WINDOW} consecutive tokens with one of the {held_out.what}")
    for number in _within(short, held_out):
        raise _overlap(use, number, f"of {len(short[number])} tokens lies within one of the {held_out.what}")
    return Compared(
        documents=name,
        documents_by_windows=len(long),
        documents_as_wholes=len(short),
        documents_too_short=len(documents) - len(long) - len(short),
        held_out=held_out.what,
        texts=len(held_out.lengths),
        texts_with_windows=sum(length >= WINDOW for length in held_out.lengths),
    )


def window_hashes(tokens: Tokens, length: int = WINDOW) -> npt.NDArray[np.uint64]:
    """Hash every window of some tokens: (n_tokens - length + 1,). Unequal windows collide with about 2**-64."""
    if len(tokens) < length:
        return np.empty(0, dtype=np.uint64)
    weights = np.random.default_rng(length).integers(1, 2**63, length, dtype=np.uint64) | np.uint64(1)
    windows = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.uint64) + np.uint64(1), length)
    parts = [
        (windows[start : start + _CHUNK] * weights).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(windows), _CHUNK)
    ]
    return np.concatenate(parts)


def _overlap(use: tuple[str, str], number: int, how: str) -> UserError:
    section, purpose = use
    return UserError(f"{section}: document {number} (the first is 0) {how}; {purpose} on text that is not evaluated on")


def _any_known(hashes: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> bool:
    if not len(known):
        return False
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return bool((known[places] == hashes).any())


def _within(documents: Mapping[int, Tokens], held_out: HeldOut) -> Iterator[int]:
    """Yield the numbers of documents that lie in the texts without their first and last token."""
    by_anchor = defaultdict(list)
    for number, tokens in documents.items():
        by_anchor[int(window_hashes(tokens[1 : 1 + _ANCHOR], _ANCHOR)[0])].append(number)
    if not by_anchor:
        return
    hashes = window_hashes(held_out.joined, _ANCHOR)
    anchors = np.fromiter(by_anchor, dtype=np.uint64)
    for position in np.flatnonzero(np.isin(hashes, anchors)):
        for number in by_anchor[int(hashes[position])]:
            inner = documents[number][1:-1]
            if np.array_equal(held_out.joined[position : position + len(inner)], inner):
                yield number


def _stripped(tokens: Tokens, special: Collection[int]) -> Tokens:
    """Drop special tokens where a text begins and ends."""
    start, end = 0, len(tokens)
    while start < end and int(tokens[start]) in special:
        start += 1
    while end > start and int(tokens[end - 1]) in special:
        end -= 1
    return tokens[start:end]
