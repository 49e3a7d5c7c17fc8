"""Calibration sequences: `n` sequences of exactly `seq_len` tokens, without padding, in one seeded order.

Documents are put in a seeded order once. A document of at least `seq_len` tokens gives one sequence, its first
`seq_len` tokens; shorter ones are passed over. So the first 128 sequences of a 512-sample setting are the 128-sample
setting, and a short sequence is the prefix of the longer one of the same document.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from espalier.errors import UserError

_CHUNK = 256  # documents tokenised at a time

Tokens = npt.NDArray[np.int64]


def draw_sequences(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, n_samples: int, seq_len: int, seed: int,
    add_bos: bool | None = None,
) -> Tokens:  # fmt: skip
    """Draw calibration sequences.

    Args:
        texts: Documents of the calibration split.
        tokenizer: Tokenizer of the model, loaded with the same `add_bos`.
        n_samples: Number of sequences.
        seq_len: Tokens of each sequence.
        seed: Seed of the order of documents.
        add_bos: Whether documents begin with BOS; None leaves special tokens to the tokenizer.

    Returns:
        Token ids, (n_samples, seq_len).

    Raises:
        UserError: If too few documents are long enough.
    """
    drawn = _draw(texts, tokenizer, n_samples, seq_len, seed, add_bos)
    return np.asarray([tokens for _, tokens in drawn], dtype=np.int64)


def documents_drawn(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, n_samples: int, seq_len: int, seed: int,
    add_bos: bool | None = None,
) -> list[int]:  # fmt: skip
    """Return the numbers of the documents that `draw_sequences` begins; raises as it does."""
    return [number for number, _ in _draw(texts, tokenizer, n_samples, seq_len, seed, add_bos)]


def document_order(n_documents: int, seed: int) -> list[int]:
    """Return the numbers of documents in the order in which calibration draws them."""
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
    for start in range(0, len(order), _CHUNK):
        numbers = order[start : start + _CHUNK]
        tokenised = tokenizer([texts[number] for number in numbers], verbose=False, **special)["input_ids"]
        drawn += [(n, tokens[:seq_len]) for n, tokens in zip(numbers, tokenised, strict=True) if len(tokens) >= seq_len]
        if len(drawn) >= n_samples:
            return drawn[:n_samples]
    raise UserError(
        f"calibration: {n_samples} sequences of {seq_len} tokens asked for, but only {len(drawn)} of "
        f"{len(texts)} documents have {seq_len} tokens; use fewer or shorter samples, or a longer calibration text"
    )
