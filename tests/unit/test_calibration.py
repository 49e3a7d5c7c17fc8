"""Calibration sequences: nested, seeded, of exact length, and apart from what is evaluated on."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from espalier.calibration import check_disjoint, draw_sequences, window_hashes
from espalier.errors import UserError
from espalier.evaluation.requests import TokenisedRequests
from espalier.scoring import Request


def draw(texts: list[str], tokenizer: PreTrainedTokenizerFast, n: int, seq_len: int, seed: int = 0) -> np.ndarray:
    return draw_sequences(texts, tokenizer, n_samples=n, seq_len=seq_len, seed=seed)


def test_fewer_samples_are_the_first_of_more(pages: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    many = draw(pages, tokenizer, 50, 32)
    assert many.shape == (50, 32)
    np.testing.assert_array_equal(draw(pages, tokenizer, 20, 32), many[:20])


def test_short_sequences_are_prefixes_of_the_same_documents(
    pages: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    """All pages have 64 tokens, so both lengths take the same documents in the same order."""
    long = draw(pages, tokenizer, 50, 64)
    np.testing.assert_array_equal(draw(pages, tokenizer, 50, 16), long[:, :16])


def test_sequences_begin_documents_as_the_tokenizer_writes_them(
    pages: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    starts = {tuple(tokenizer(page, verbose=False)["input_ids"][:24]) for page in pages}
    assert all(tuple(sequence) in starts for sequence in draw(pages, tokenizer, 30, 24).tolist())


def test_seeds_give_other_orders(pages: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    first, again, other = (draw(pages, tokenizer, 20, 16, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_documents_that_are_too_short_are_passed_over(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The ball is red. " * 20] * 3 + ["Short."] * 50
    assert draw(texts, tokenizer, 3, 40).shape == (3, 40)
    with pytest.raises(
        UserError,
        match=r"calibration: 4 sequences of 40 tokens asked for, but only 3 of 53 documents have 40 tokens; use fewer",
    ):
        draw(texts, tokenizer, 4, 40)


def test_fifty_shared_tokens_are_refused() -> None:
    generator = np.random.default_rng(0)
    calibration = generator.integers(0, 500, (8, 80))
    text = generator.integers(0, 500, 400)
    check_disjoint(calibration, [text.tolist()], "a text")
    text[100:149] = calibration[5, 10:59]  # 49 tokens are allowed
    text[149] = 501
    check_disjoint(calibration, [text.tolist()], "a text")
    text[149] = calibration[5, 59]
    with pytest.raises(UserError, match=r"calibration: sequence 5 shares 50 consecutive tokens with a text; calibrate"):
        check_disjoint(calibration, [[1] * 10, text.tolist()], "a text")


def test_what_is_evaluated_is_hashed_once_for_all_sequence_lengths(
    load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two texts and three documents for two lengths of four sequences each: hashed 5 times, not 10."""
    generator = np.random.default_rng(0)
    texts = {name: generator.integers(0, 500, 200) for name in "ab"}
    requests = {n: Request(generator.integers(0, 500, 60), generator.integers(0, 500, 3)) for n in range(3)}
    drawn = {length: generator.integers(0, 500, (4, length)) for length in (60, 80)}
    script = load_script("check_calibration")
    monkeypatch.setattr(script, "read_json", lambda _: {"model": "A"})
    monkeypatch.setattr(script, "read_requests", lambda _: TokenisedRequests(requests, texts, {}))
    monkeypatch.setattr(script, "load_sequences", lambda *given: drawn[given[2]["seq_len"]])
    hashed = []
    monkeypatch.setattr("espalier.calibration.window_hashes", lambda t: hashed.append(len(t)) or window_hashes(t))
    settings = [{"seq_len": length, "n_samples": 4} for length in drawn]
    arguments = {"manifest": "", "requests": "", "text": "", "settings": settings, "checked": str(tmp_path / "c.json")}
    script.main(**arguments)
    assert sorted(hashed) == sorted([200, 200, 63, 63, 63, *[60] * 8, *[80] * 8])  # sequences: for texts and documents
    requests[1].context[2:52] = drawn[80][3, 7:57]
    with pytest.raises(UserError, match="sequence 3 shares 50 consecutive tokens with a task document"):
        script.main(**arguments)


def test_sequences_under_fifty_tokens_share_nothing() -> None:
    sequence = np.arange(40)[None]
    check_disjoint(sequence, [list(range(40))], "a text")


def test_hashes_tell_windows_apart() -> None:
    """Every window of a random text differs, and equal windows have equal hashes."""
    text = np.random.default_rng(1).integers(0, 1000, 5000)
    hashes = window_hashes(text)
    assert hashes.shape == (4951,)
    assert len(np.unique(hashes)) == 4951
    np.testing.assert_array_equal(window_hashes(text[70:200]), hashes[70:151])
