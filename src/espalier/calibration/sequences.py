"""Calibration sequences of exactly `seq_len` tokens, without padding, drawn from documents in a seeded order.

The seed determines one order of all documents. A document of at least `seq_len` tokens gives one sequence, its first
`seq_len` tokens. Shorter documents are skipped. With equal `seq_len`, the sequences of a 128-sample setting are
therefore the first 128 sequences of the 512-sample setting. With different `seq_len`, the shorter sequence of a
document is a prefix of the longer one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from espalier.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DOCUMENTS_AT_ONCE = 256  # documents tokenised at once

TokenIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SequenceSettings:
    """Settings that determine which calibration sequences are drawn from a text.

    Attributes:
        text_field: Column or key of the text in the file.
        seed: Seed of the order of documents.
        seq_len: Tokens of each sequence.
        n_samples: Number of sequences.
        add_bos: Whether documents begin with BOS. None uses the tokenizer's default.
    """

    text_field: str
    seed: int
    seq_len: int
    n_samples: int
    add_bos: bool | None = None


def draw_sequences(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, n_samples: int, seq_len: int, seed: int,
    add_bos: bool | None = None,
) -> TokenIds:  # fmt: skip
    """Draw calibration sequences.

    Args:
        texts: Documents of the calibration text.
        tokenizer: Tokenizer of the model, loaded with the same `add_bos`.
        n_samples: Number of sequences.
        seq_len: Tokens of each sequence.
        seed: Seed of the order of documents.
        add_bos: Whether documents begin with BOS. None uses the tokenizer's default.

    Returns:
        Token ids, (n_samples, seq_len).

    Raises:
        UserError: If fewer than `n_samples` documents have `seq_len` tokens.
    """
    drawn = _draw(texts, tokenizer, n_samples, seq_len, seed, add_bos)
    return np.asarray([tokens for _, tokens in drawn], dtype=np.int64)


def drawn_documents(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, n_samples: int, seq_len: int, seed: int,
    add_bos: bool | None = None,
) -> list[int]:  # fmt: skip
    """Return the indices of the documents from which `draw_sequences` takes its sequences.

    Raises:
        UserError: If fewer than `n_samples` documents have `seq_len` tokens.
    """
    return [number for number, _ in _draw(texts, tokenizer, n_samples, seq_len, seed, add_bos)]


def document_order(n_documents: int, seed: int) -> list[int]:
    """Return the indices of all documents in the order in which calibration draws them."""
    order = list(range(n_documents))
    random.Random(f"calibration-{seed}").shuffle(order)
    return order


def _draw(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, n_samples: int, seq_len: int, seed: int,
    add_bos: bool | None,
) -> list[tuple[int, list[int]]]:  # fmt: skip
    special = {} if add_bos is None else {"add_special_tokens": add_bos}
    order = document_order(len(texts), seed)
    drawn: list[tuple[int, list[int]]] = []
    for start in range(0, len(order), _DOCUMENTS_AT_ONCE):
        numbers = order[start : start + _DOCUMENTS_AT_ONCE]
        tokenised = tokenizer([texts[number] for number in numbers], verbose=False, **special)["input_ids"]
        drawn += [(n, tokens[:seq_len]) for n, tokens in zip(numbers, tokenised, strict=True) if len(tokens) >= seq_len]
        if len(drawn) >= n_samples:
            return drawn[:n_samples]
    raise UserError(
        f"calibration: {n_samples} sequences of {seq_len} tokens asked for, but only {len(drawn)} of "
        f"{len(texts)} documents have {seq_len} tokens; use fewer or shorter samples, or a longer calibration text"
    )
