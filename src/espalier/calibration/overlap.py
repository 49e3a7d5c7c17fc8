"""Detection of overlap between training or calibration documents and the texts of an evaluation.

A document of at least 52 tokens overlaps with a text if they share 50 consecutive tokens. A document of 16 to 51 tokens
overlaps if the text contains all of it except its first and last token. These two tokens may differ because tokens at
the border of a document depend on the text before and after it. Documents of fewer than 16 tokens are not compared
because they may match by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from espalier.calibration.sequences import TokenIds
from espalier.errors import UserError
from espalier.scoring.requests import Integers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CALIBRATION = ("calibration", "calibrate")
WINDOW = 50
# Tokens at the border of a document may differ in the evaluation text. With two more tokens than a window, a document
# has a window without its first and last token.
MIN_WINDOWED_TOKENS = WINDOW + 2
MIN_TOKENS = 16
_ANCHOR = MIN_TOKENS - 2
_WINDOWS_AT_ONCE = 1 << 18  # windows hashed at once


class HeldOutTexts:
    """Texts of an evaluation, which no model may be calibrated or trained on.

    Args:
        what: Name of the texts, for messages.
        texts: Token ids of each text.
        special: Ids of special tokens. They are removed at the beginning and end of each text.
    """

    def __init__(self, what: str, texts: Iterable[Sequence[int] | Integers], special: Collection[int]) -> None:
        self.what = what
        self._texts = [_stripped(np.asarray(text, dtype=np.int64), special) for text in texts]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each text."""
        return [len(text) for text in self._texts]

    @cached_property
    def windows(self) -> npt.NDArray[np.uint64]:
        """Sorted distinct hashes of all windows of 50 tokens."""
        return np.unique(window_hashes(self.joined))

    @cached_property
    def joined(self) -> TokenIds:
        """All texts concatenated, with -1 after each text."""
        apart = np.asarray([-1], dtype=np.int64)
        parts = [part for text in self._texts for part in (text, apart)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class OverlapComparison:
    """Record of a comparison of documents with texts of an evaluation.

    Attributes:
        documents: Name of the documents.
        documents_by_windows: Number of documents whose windows of 50 tokens were searched for.
        documents_as_wholes: Number of shorter documents, which were searched for as a whole.
        documents_too_short: Number of documents that were not searched for.
        held_out: Name of the texts of the evaluation.
        texts: Number of these texts.
        texts_with_windows: Number of texts of at least 50 tokens. Shorter texts have no windows, so only a search for
            whole documents can find overlap with them.
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
        """Reasons why some documents or texts were not compared, one sentence each."""
        reasons = []
        if not self.documents_by_windows:
            reasons.append(
                f"{self.documents}: none has {MIN_WINDOWED_TOKENS} tokens, so none was looked for by windows of "
                f"{WINDOW}"
            )
        if self.documents_too_short:
            reasons.append(f"{self.documents}: {self.documents_too_short} have fewer than {MIN_TOKENS} tokens")
        if short := self.texts - self.texts_with_windows:
            reasons.append(f"{self.held_out}: {short} of {self.texts} have fewer than {WINDOW} tokens, so no windows")
        return reasons


def summarise_overlap(compared: Sequence[OverlapComparison], left_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return a JSON summary of comparisons that found no overlap.

    Args:
        compared: The comparisons.
        left_out: Reasons why further texts were not compared.

    Returns:
        `shared_50_token_windows` is 0, or None if no windows were compared. `compared` lists the comparisons.
        `not_compared` lists the reasons why some documents or texts were not compared.
    """
    found = any(one.documents_by_windows and one.texts_with_windows for one in compared)
    return {
        "shared_50_token_windows": 0 if found else None,
        "compared": [asdict(one) for one in compared],
        "not_compared": list(dict.fromkeys([*(reason for one in compared for reason in one.reasons), *left_out])),
    }


def document_tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, numbers: Sequence[int], n_tokens: int | None = None
) -> dict[int, TokenIds]:
    """Tokenise documents without special tokens, so that they can be found inside longer texts.

    Args:
        texts: All documents.
        tokenizer: Tokenizer of the model.
        numbers: Indices of the documents to tokenise.
        n_tokens: Number of first tokens to return. At least 52 tokens are returned if the document has them. None
            returns whole documents.

    Returns:
        Token ids of each document, (n_document_tokens,), by its index.
    """
    if not numbers:
        return {}
    chosen = [texts[number] for number in numbers]
    tokenised = tokenizer(chosen, add_special_tokens=False, verbose=False)["input_ids"]
    end = None if n_tokens is None else max(n_tokens, MIN_WINDOWED_TOKENS)
    return {n: np.asarray(tokens[:end], dtype=np.int64) for n, tokens in zip(numbers, tokenised, strict=True)}


def check_no_overlap(
    documents: Mapping[int, TokenIds], held_out: HeldOutTexts, *, name: str, use: tuple[str, str] = CALIBRATION
) -> OverlapComparison:
    """Check that documents do not overlap with texts of an evaluation.

    Args:
        documents: Token ids of each document, without special tokens, by the index of the document.
        held_out: Texts of the evaluation.
        name: Name of the documents, for the record.
        use: Config section that names the text of the documents, and a verb for their purpose, for the message.

    Returns:
        The record of the comparison.

    Raises:
        UserError: If a document overlaps. The message names the first one found.
    """
    long = {number: tokens for number, tokens in documents.items() if len(tokens) >= MIN_WINDOWED_TOKENS}
    short = {number: tokens for number, tokens in documents.items() if MIN_TOKENS <= len(tokens) < MIN_WINDOWED_TOKENS}
    for number, tokens in long.items():
        if _any_known(window_hashes(tokens), held_out.windows):
            raise _overlap(use, number, f"shares {WINDOW} consecutive tokens with one of the {held_out.what}")
    for number in _contained_documents(short, held_out):
        raise _overlap(use, number, f"of {len(short[number])} tokens lies within one of the {held_out.what}")
    return OverlapComparison(
        documents=name,
        documents_by_windows=len(long),
        documents_as_wholes=len(short),
        documents_too_short=len(documents) - len(long) - len(short),
        held_out=held_out.what,
        texts=len(held_out.lengths),
        texts_with_windows=sum(length >= WINDOW for length in held_out.lengths),
    )


def window_hashes(tokens: TokenIds, length: int = WINDOW) -> npt.NDArray[np.uint64]:
    """Compute a hash of every window of `length` tokens.

    Different windows have the same hash with a probability of about 2**-64.

    Args:
        tokens: Token ids, (n_tokens,).
        length: Tokens of a window.

    Returns:
        Hashes, (n_tokens - length + 1,), or empty if there are fewer than `length` tokens.
    """
    if len(tokens) < length:
        return np.empty(0, dtype=np.uint64)
    weights = np.random.default_rng(length).integers(1, 2**63, length, dtype=np.uint64) | np.uint64(1)
    windows = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.uint64) + np.uint64(1), length)
    parts = [
        (windows[start : start + _WINDOWS_AT_ONCE] * weights).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(windows), _WINDOWS_AT_ONCE)
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


def _contained_documents(documents: Mapping[int, TokenIds], held_out: HeldOutTexts) -> Iterator[int]:
    """Yield the indices of documents that occur in the texts, ignoring the first and last token of the document."""
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


def _stripped(tokens: TokenIds, special: Collection[int]) -> TokenIds:
    """Remove special tokens at the beginning and end of a text."""
    start, end = 0, len(tokens)
    while start < end and int(tokens[start]) in special:
        start += 1
    while end > start and int(tokens[end - 1]) in special:
        end -= 1
    return tokens[start:end]
