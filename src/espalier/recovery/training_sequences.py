"""Training sequences for recovery: documents in a seeded order, joined and cut into sequences of equal length.

If calibration uses the same text, fine-tuning leaves out the documents that calibration draws first. For each
calibration seed s, rank_s(d) is the position of document d in the order of that seed:

    lateness(d) = min over s of rank_s(d)

Fine-tuning uses the half of the documents with the largest lateness. Calibration and fine-tuning then share no
document, unless a calibration set is so large that it reaches this half. The rule `check_recovery` raises an error in
that case. The half does not depend on the sequence length or the sample count of the calibration.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espalier.calibration.overlap import OverlapComparison, check_no_overlap, document_tokens
from espalier.calibration.sequences import SequenceSettings, TokenIds, document_order, drawn_documents
from espalier.errors import UserError
from espalier.evaluation.held_out import held_out_texts
from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.models.loading import load_tokenizer, special_tokens
from espalier.models.manifest import check_unchanged
from espalier.models.vocabulary import check_token_ids, vocab_size_of
from espalier.text_files import read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ERROR_WORDING = ("recovery", "fine-tune")
_TOKENISED_AT_ONCE = 256  # documents


@dataclass(frozen=True)
class TrainingTextSettings:
    """Settings that determine the sequences to fine-tune on.

    Attributes:
        text_field: Column of the text file that holds the documents.
        seed: Seed of the order of the documents.
        calibration_seeds: Seeds of the calibration sets drawn from the same text. Empty if calibration uses another
            text.
        seq_len: Tokens per sequence.
        n_sequences: Number of sequences.
        add_bos: Whether documents begin with BOS; None leaves special tokens to the tokenizer.
    """

    text_field: str
    seed: int
    calibration_seeds: Sequence[int]
    seq_len: int
    n_sequences: int
    add_bos: bool | None = None


@dataclass(frozen=True)
class TrainingSequences:
    """Sequences to fine-tune on.

    Attributes:
        tokens: Token ids, (n_sequences, seq_len).
        documents: Indices of the documents in the sequences.
    """

    tokens: TokenIds
    documents: list[int]


def load_training_sequences(
    manifest: Mapping[str, Any], text: str, settings: TrainingTextSettings
) -> TrainingSequences:
    """Read a text file, tokenise it with the tokenizer of a model, and return the sequences to fine-tune on.

    Args:
        manifest: Content of the model's manifest.
        text: Path of the text file.
        settings: Settings that determine the sequences.

    Raises:
        UserError: If the text is too short, if the model files have changed, or if a token id exceeds the vocabulary.
    """
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=settings.add_bos
    )
    texts = read_texts(text, settings.text_field)
    order = training_order(len(texts), seed=settings.seed, calibration_seeds=settings.calibration_seeds)
    sequences = make_sequences(
        texts, tokenizer, order,
        n_sequences=settings.n_sequences, seq_len=settings.seq_len, add_bos=settings.add_bos,
    )  # fmt: skip
    check_token_ids(sequences.tokens, vocab_size_of(manifest), "recovery")
    return sequences


def training_order(n_documents: int, *, seed: int, calibration_seeds: Sequence[int]) -> list[int]:
    """Return the indices of the documents to fine-tune on, in their seeded order.

    Args:
        n_documents: Number of documents in the text.
        seed: Seed of the order.
        calibration_seeds: Seeds of the calibration sets drawn from the same text. Empty if calibration uses another
            text; then all documents are returned.
    """
    lateness = [n_documents] * n_documents
    for calibration_seed in calibration_seeds:
        for rank, index in enumerate(document_order(n_documents, calibration_seed)):
            lateness[index] = min(lateness[index], rank)
    kept = sorted(range(n_documents), key=lambda index: (-lateness[index], index))
    if calibration_seeds:
        kept = kept[: n_documents // 2]
    order = sorted(kept)
    random.Random(f"recovery-{seed}").shuffle(order)
    return order


def make_sequences(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, order: Sequence[int], *, n_sequences: int, seq_len: int,
    add_bos: bool | None = None,
) -> TrainingSequences:  # fmt: skip
    """Join documents, each with its special tokens and an end-of-text token, and cut them into sequences.

    Args:
        texts: All documents of the text.
        tokenizer: Tokenizer of the model, loaded with the same `add_bos`.
        order: Indices of the documents to use, in this order.
        n_sequences: Number of sequences to return.
        seq_len: Tokens per sequence.
        add_bos: Whether documents begin with BOS; None leaves special tokens to the tokenizer.

    Raises:
        UserError: If the documents have too few tokens.
    """
    stream: list[int] = []
    used: list[int] = []
    end = tokenizer.eos_token_id
    for start in range(0, len(order), _TOKENISED_AT_ONCE):
        indices = order[start : start + _TOKENISED_AT_ONCE]
        chunk = [texts[index] for index in indices]
        tokenised = tokenizer(chunk, verbose=False, **special_tokens(add_bos))["input_ids"]
        for index, tokens in zip(indices, tokenised, strict=True):
            if len(stream) >= n_sequences * seq_len:
                break
            stream += tokens if end is None or tokens[-1:] == [end] else [*tokens, end]
            used.append(index)
    if len(stream) < n_sequences * seq_len:
        raise UserError(
            f"recovery: {n_sequences:,} sequences of {seq_len} tokens asked for, but the {len(order):,} documents have "
            f"{len(stream):,} tokens, enough for {len(stream) // seq_len:,}; give a smaller recovery.n_sequences or "
            "seq_len, or a longer recovery.text"
        )
    return TrainingSequences(
        np.asarray(stream[: n_sequences * seq_len], dtype=np.int64).reshape(n_sequences, seq_len), used
    )


def check_not_evaluated(
    sequences: TrainingSequences, manifest: Mapping[str, Any], text: str, text_field: str, requests: TokenisedRequests
) -> list[OverlapComparison]:
    """Check that no training document overlaps with the evaluation data of a model.

    Args:
        sequences: Sequences to fine-tune on.
        manifest: Content of the model's manifest.
        text: Path of the text file.
        text_field: Column of the text file that holds the documents.
        requests: Tokenised requests of the model.

    Returns:
        Counts of the two comparisons: with the perplexity texts, and with the task documents.

    Raises:
        UserError: If a document overlaps. The message gives the index of the first such document.
    """
    tokenizer = load_tokenizer(check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"])
    documents = document_tokens(read_texts(text, text_field), tokenizer, sequences.documents)
    return [
        check_no_overlap(documents, evaluated, name="documents that are fine-tuned on", use=ERROR_WORDING)
        for evaluated in held_out_texts(requests, tokenizer)
    ]


def check_not_calibrated(
    sequences: TrainingSequences, manifest: Mapping[str, Any], text: str, calibrations: Sequence[SequenceSettings]
) -> None:
    """Check that no training document is in a calibration set drawn from the same text.

    Args:
        sequences: Sequences to fine-tune on.
        manifest: Content of the model's manifest.
        text: Path of the text file.
        calibrations: Calibration sets drawn from this text; all have the same `text_field` and `add_bos`.

    Raises:
        UserError: If a calibration set shares documents with `sequences`. The message gives their number.
    """
    if not calibrations:
        return
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=calibrations[0].add_bos
    )
    texts, trained = read_texts(text, calibrations[0].text_field), set(sequences.documents)
    for one in calibrations:
        drawn = drawn_documents(
            texts, tokenizer, n_samples=one.n_samples, seq_len=one.seq_len, seed=one.seed, add_bos=one.add_bos
        )
        if shared := trained.intersection(drawn):
            raise UserError(
                f"recovery: {len(shared)} of its {len(trained)} documents are in the calibration set of seed "
                f"{one.seed}, {one.n_samples} sequences of {one.seq_len} tokens; name another recovery.text"
            )
