"""Calibration text in jobs: draw the sequences of a model, and check the text against the evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from espalier.calibration.overlap import OverlapComparison, check_no_overlap, document_tokens
from espalier.calibration.sequences import SequenceSettings, TokenIds, draw_sequences, drawn_documents
from espalier.evaluation.held_out import held_out_texts
from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.models.vocabulary import check_token_ids, vocab_size_of
from espalier.text_files import read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _texts(path: str, text_field: str) -> list[str]:
    return read_texts(path, text_field)


@lru_cache(maxsize=1)
def _tokenizer(folder: str, trust_remote_code: bool, add_bos: bool | None) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder, trust_remote_code=trust_remote_code, add_bos=add_bos)


def load_sequences(manifest: Mapping[str, Any], text: str, sequences: SequenceSettings) -> TokenIds:
    """Draw calibration sequences with the tokenizer of a model.

    Args:
        manifest: Content of the model's manifest.
        text: File of the calibration text.
        sequences: Sequences to draw.

    Returns:
        Token ids, (n_samples, seq_len).

    Raises:
        UserError: If the text cannot be read, too few documents are long enough, a token has no row in the model's
            embedding, or the model has changed since its manifest.
    """
    tokenizer = _tokenizer(str(check_unchanged(manifest)), manifest["trust_remote_code"], sequences.add_bos)
    tokens = draw_sequences(
        _texts(text, sequences.text_field),
        tokenizer,
        n_samples=sequences.n_samples,
        seq_len=sequences.seq_len,
        seed=sequences.seed,
        add_bos=sequences.add_bos,
    )
    check_token_ids(tokens, vocab_size_of(manifest), "calibration")
    logger.info("%d sequences of %d tokens", *tokens.shape)
    return tokens


def check_sequences(
    manifest: Mapping[str, Any], requests: TokenisedRequests, text: str, settings: Sequence[SequenceSettings]
) -> list[OverlapComparison]:
    """Check that calibration documents do not overlap with the texts on which a model is evaluated.

    Args:
        manifest: Content of the model's manifest.
        requests: Tokenised requests of the model.
        text: File of the calibration text.
        settings: Sequences that are drawn from this text. They must differ in `seq_len` and `n_samples` only.

    Returns:
        Two comparisons for each setting: with the perplexity texts, and with the documents of tasks.

    Raises:
        UserError: If documents overlap, the text cannot be read, too few documents are long enough, a token has no row
            in the model's embedding, or the model has changed since its manifest.
    """
    if not settings:
        return []
    add_bos = settings[0].add_bos
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=add_bos
    )
    held_out, vocab_size = held_out_texts(requests, tokenizer), vocab_size_of(manifest)
    texts = read_texts(text, settings[0].text_field)
    compared: list[OverlapComparison] = []
    for one in settings:
        numbers = drawn_documents(
            texts, tokenizer, n_samples=one.n_samples, seq_len=one.seq_len, seed=one.seed, add_bos=add_bos
        )
        documents = document_tokens(texts, tokenizer, numbers, one.seq_len)
        for tokens in documents.values():
            check_token_ids(tokens[: one.seq_len], vocab_size, "calibration")
        name = f"documents of {one.n_samples} sequences of {one.seq_len} tokens"
        compared += [check_no_overlap(documents, evaluated, name=name) for evaluated in held_out]
    return compared
