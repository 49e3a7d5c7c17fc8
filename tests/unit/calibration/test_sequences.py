"""Calibration sequences: nested, seeded and of exact length."""

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from espalier.calibration.sequences import draw_sequences
from espalier.errors import UserError


def draw(texts: list[str], tokenizer: PreTrainedTokenizerFast, n: int, seq_len: int, seed: int = 0) -> np.ndarray:
    return draw_sequences(texts, tokenizer, n_samples=n, seq_len=seq_len, seed=seed)


def test_fewer_samples_are_the_first_of_more(pages: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    many = draw(pages, tokenizer, 50, 32)
    assert many.shape == (50, 32)
    np.testing.assert_array_equal(draw(pages, tokenizer, 20, 32), many[:20])


def test_short_sequences_are_prefixes_of_the_same_documents(
    pages: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    """All pages have at least 64 tokens, so both lengths use the same documents in the same order."""
    long = draw(pages, tokenizer, 50, 64)
    np.testing.assert_array_equal(draw(pages, tokenizer, 50, 16), long[:, :16])


def test_sequences_begin_with_the_special_tokens_of_the_tokenizer(
    pages: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    starts = {tuple(tokenizer(page, verbose=False)["input_ids"][:24]) for page in pages}
    assert all(tuple(sequence) in starts for sequence in draw(pages, tokenizer, 30, 24).tolist())


def test_seeds_give_different_orders(pages: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    first, again, other = (draw(pages, tokenizer, 20, 16, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_documents_that_are_too_short_are_skipped(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The ball is red. " * 20] * 3 + ["Short."] * 50
    assert draw(texts, tokenizer, 3, 40).shape == (3, 40)
    with pytest.raises(
        UserError,
        match=r"calibration: 4 sequences of 40 tokens asked for, but only 3 of 53 documents have 40 tokens; use fewer",
    ):
        draw(texts, tokenizer, 4, 40)
