"""Calibration documents that occur in evaluation texts are found; the record says what was not compared."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from espalier.calibration.overlap import (
    HeldOutTexts,
    OverlapComparison,
    check_no_overlap,
    document_tokens,
    summarise_overlap,
    window_hashes,
)
from espalier.calibration.sequences import drawn_documents
from espalier.errors import UserError
from espalier.evaluation.held_out import held_out_texts, texts_left_out
from espalier.evaluation.tokenised_requests import RequestKey, TokenisedRequests
from espalier.sandbox.corpora import make_lines
from espalier.sandbox.world import World
from espalier.scoring.requests import Request


def tokens(n: int, seed: int = 0) -> np.ndarray:
    """Return random token ids from 10 to 499. Tests use ids below 10 for special and for foreign tokens."""
    return np.random.default_rng(seed).integers(10, 500, n)


def check(
    document: Sequence[int] | np.ndarray, *texts: Sequence[int] | np.ndarray, special: Sequence[int] = ()
) -> OverlapComparison:
    """Compare one document, with number 7, with held-out texts."""
    return check_no_overlap({7: np.asarray(document)}, HeldOutTexts("texts", texts, set(special)), name="documents")


def test_fifty_shared_tokens_are_refused() -> None:
    document, text = tokens(80), tokens(400, seed=1)
    check(document, text)
    text[100:149] = document[10:59]  # 49 tokens are allowed
    text[149] = 1
    check(document, text)
    text[149] = document[59]
    with pytest.raises(
        UserError,
        match=r"^calibration: document 7 \(the first is 0\) shares 50 consecutive tokens with one of the texts; "
        "calibrate on text that is not evaluated on$",
    ):
        check(document, tokens(10, seed=2), text)


def test_a_match_does_not_span_two_texts() -> None:
    document = tokens(60)
    check(document, document[:30], document[30:])
    check(document[:40], document[:20], document[20:40])


@pytest.mark.parametrize("length", [16, 32, 49, 50, 51])
def test_a_shorter_document_is_found_as_a_whole(length: int) -> None:
    """Its first and last token may differ where texts are joined, since a token may include the space."""
    document, around = tokens(length), tokens(30, seed=1)
    for found in (document, [1, *document[1:-1], 2]):
        with pytest.raises(
            UserError, match=rf"document 7 \(the first is 0\) of {length} tokens lies within one of the"
        ):
            check(document, around, [*around, *found, *around])
    for missing in (2, length - 2):
        changed = document.copy()
        changed[missing - 1] = 3
        check(document, [*around, *changed, *around])
    compared = check(document, around)
    assert (compared.documents_by_windows, compared.documents_as_wholes, compared.documents_too_short) == (0, 1, 0)


def test_documents_of_few_tokens_are_not_compared() -> None:
    """Documents under 16 tokens are not compared: a sentence such as `The ball is red.` may occur in both texts."""
    document = tokens(15)
    assert check(document, document).documents_too_short == 1


def test_long_documents_may_differ_where_texts_are_joined() -> None:
    document, around = tokens(52), tokens(30, seed=1)
    for joined in ([*around, 1, *document[1:]], [*around, 1, 2, *document[2:]], [*document[:-1], 1, *around]):
        with pytest.raises(UserError, match=r"document 7 .* shares 50 consecutive tokens"):
            check(document, joined)


def test_special_tokens_at_the_ends_are_ignored() -> None:
    document = tokens(16)
    with pytest.raises(UserError, match=r"of 16 tokens lies within"):
        check(document, [0, 0, *document, 1], special=[0, 1])


@given(
    documents=st.lists(st.lists(st.integers(0, 1), min_size=16, max_size=51), min_size=1, max_size=3),
    texts=st.lists(st.lists(st.integers(0, 1), max_size=80), min_size=1, max_size=3),
    planted=st.integers(0, 3),
)
def test_whole_documents_are_found_as_by_brute_force(
    documents: list[list[int]], texts: list[list[int]], planted: int
) -> None:
    if planted < len(documents):
        texts = [*texts, [1, *documents[planted][1:-1], 0]]
    inner = [document[1:-1] for document in documents]
    found = [
        number
        for number, part in enumerate(inner)
        if any(text[i : i + len(part)] == part for text in texts for i in range(len(text)))
    ]
    given_documents = {number: np.asarray(document) for number, document in enumerate(documents)}
    held_out = HeldOutTexts("texts", texts, set())
    if not found:
        check_no_overlap(given_documents, held_out, name="documents")
        return
    with pytest.raises(UserError) as caught:
        check_no_overlap(given_documents, held_out, name="documents")
    assert int(str(caught.value).split()[2]) in found


def test_different_windows_have_different_hashes() -> None:
    """Different windows have different hashes and equal windows equal hashes, also across chunks."""
    text = np.random.default_rng(1).integers(0, 1000, 5000)
    hashes = window_hashes(text)
    assert hashes.shape == (4951,)
    assert len(np.unique(hashes)) == 4951
    np.testing.assert_array_equal(window_hashes(text[70:200]), hashes[70:151])
    long = np.tile(text, 60)
    assert len(np.unique(window_hashes(long))) == 5000
    np.testing.assert_array_equal(window_hashes(long)[-4951:], hashes)
    assert window_hashes(text[:49]).shape == (0,)


@pytest.mark.parametrize("joiner", ["\n\n", " "])
@pytest.mark.parametrize("seq_len", [8, 16, 24])
def test_a_copy_of_a_perplexity_text_is_found(
    seq_len: int, joiner: str, world: World, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Its lines are documents of 10 to 40 tokens; joining them changes the tokens at their ends."""
    lines = make_lines(world, "copied", 200, 0)
    held_out = held_out_texts(
        TokenisedRequests({}, {"copied": tokenizer(joiner.join(lines), verbose=False)["input_ids"]}, {}), tokenizer
    )[0]
    for texts, is_copy in ((lines, True), (make_lines(world, "other", 200, 0), False)):
        numbers = drawn_documents(texts, tokenizer, n_samples=10, seq_len=seq_len, seed=0)
        documents = document_tokens(texts, tokenizer, numbers, seq_len)
        if is_copy:
            with pytest.raises(UserError, match=r"tokens lies within one of the perplexity texts; calibrate on text"):
                check_no_overlap(documents, held_out, name="documents")
        else:
            assert check_no_overlap(documents, held_out, name="documents").documents_as_wholes > 0


def test_a_document_is_compared_up_to_the_length_of_a_window(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["The ball is red. " * 60, "Short one."]
    whole = tokenizer(texts[0], add_special_tokens=False, verbose=False)["input_ids"]
    for n_tokens, length in ((16, 52), (52, 52), (64, 64), (None, len(whole))):
        documents = document_tokens(texts, tokenizer, [0, 1], n_tokens)
        assert documents[0].tolist() == whole[:length]
        assert 0 < len(documents[1]) < 10
    assert document_tokens(texts, tokenizer, []) == {}


def test_requests_are_texts_of_question_and_choice(tokenizer: PreTrainedTokenizerFast) -> None:
    """Context and continuation of a request are compared as one text, so a document may span both."""
    document = tokens(40)
    context, continuation = np.asarray([*tokens(20, seed=1), *document[:30]]), np.asarray(document[30:])
    requests = TokenisedRequests({RequestKey("boolq", 0, 0): Request(context, continuation)}, {}, {})
    perplexity, tasks = held_out_texts(requests, tokenizer)
    with pytest.raises(UserError, match=r"of 40 tokens lies within one of the task documents"):
        check_no_overlap({0: document}, tasks, name="documents")
    assert check_no_overlap({0: document}, perplexity, name="documents").texts == 0


def test_documents_of_generative_tasks_are_said_to_be_left_out() -> None:
    """The requests have the documents of multiple-choice tasks only."""
    request = {RequestKey("boolq", 0, 0): Request(tokens(4), tokens(2))}
    for tasks, reasons in (
        (["boolq"], []),
        (["boolq", "gsm8k"], ["task documents: those of gsm8k, which is answered with a text, are not compared"]),
    ):
        requests = TokenisedRequests(request, {}, {"settings": {"protocol": {"tasks": tasks}}})
        assert texts_left_out(requests) == reasons
        assert summarise_overlap([], texts_left_out(requests))["not_compared"] == reasons


def test_missing_comparisons_are_null_with_a_reason() -> None:
    held_out = HeldOutTexts("texts", [tokens(30, seed=1), tokens(90, seed=2)], set())
    short = check_no_overlap({0: tokens(20), 1: tokens(8)}, held_out, name="documents of 16 tokens")
    assert summarise_overlap([short]) == {
        "shared_50_token_windows": None,
        "compared": [
            {
                "documents": "documents of 16 tokens", "documents_by_windows": 0, "documents_as_wholes": 1,
                "documents_too_short": 1, "held_out": "texts", "texts": 2, "texts_with_windows": 1,
            }
        ],
        "not_compared": [
            "documents of 16 tokens: none has 52 tokens, so none was looked for by windows of 50",
            "documents of 16 tokens: 1 have fewer than 16 tokens",
            "texts: 1 of 2 have fewer than 50 tokens, so no windows",
        ],
    }  # fmt: skip
    long = check_no_overlap({0: tokens(60)}, HeldOutTexts("texts", [tokens(90, seed=2)], set()), name="documents")
    assert summarise_overlap([short, long])["shared_50_token_windows"] == 0
    assert summarise_overlap([long])["not_compared"] == []
    only_short_texts = check_no_overlap(
        {0: tokens(60)}, HeldOutTexts("texts", [tokens(30, seed=1)], set()), name="documents"
    )
    assert summarise_overlap([only_short_texts])["shared_50_token_windows"] is None
