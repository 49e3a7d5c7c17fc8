"""What is fine-tuned on: documents in a seeded order, joined and cut into sequences of equal length.

Where the text is also the calibration text, the documents that calibration reaches first stay out. For calibration
seeds s, rank_s(d) is the place of document d in the order of seed s:

    lateness(d) = min over s of rank_s(d);   fine-tuned on is the half of the documents with the largest lateness

So a document is kept for one of the two only, as long as no calibration set reaches into that half (`check_recovery`
says when one does), and another sequence length or sample count of the calibration changes nothing here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from espalier.calibration.overlap import Compared, check_disjoint, document_tokens
from espalier.calibration.sequences import Tokens, document_order, documents_drawn
from espalier.calibration.texts import read_texts
from espalier.errors import UserError
from espalier.evaluation.held_out import held_out_texts
from espalier.evaluation.requests import TokenisedRequests
from espalier.models.loading import load_tokenizer, special_tokens
from espalier.models.manifest import check_unchanged
from espalier.models.vocabulary import check_token_ids, vocab_size_of

USE = ("recovery", "fine-tune")
_CHUNK = 256  # documents tokenised at a time


@dataclass(frozen=True)
class Packed:
    """Sequences to fine-tune on.

    Attributes:
        tokens: Token ids, (n_sequences, seq_len).
        documents: Numbers of the documents that are in them.
    """

    tokens: Tokens
    documents: list[int]


def load_packed(manifest: Mapping[str, Any], text: str, settings: Mapping[str, Any]) -> Packed:
    """Draw sequences with the tokenizer of a model.

    Args:
        manifest: Content of the model's manifest.
        text: File of the text.
        settings: `text_field`, `seed`, `calibration_seeds` (none where the text is another one), `seq_len`,
            `n_sequences` and, where the config sets it, `add_bos`.

    Raises:
        UserError: If the text is too short, or the model has changed.
    """
    add_bos = settings.get("add_bos")
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=add_bos
    )
    texts = read_texts(text, settings["text_field"])
    order = training_order(len(texts), seed=settings["seed"], calibration_seeds=settings["calibration_seeds"])
    packed = pack(
        texts, tokenizer, order,
        n_sequences=settings["n_sequences"], seq_len=settings["seq_len"], add_bos=add_bos,
    )  # fmt: skip
    check_token_ids(packed.tokens, vocab_size_of(manifest), "recovery")
    return packed


def training_order(n_documents: int, *, seed: int, calibration_seeds: Sequence[int]) -> list[int]:
    """Return the numbers of the documents to fine-tune on, in their seeded order.

    Args:
        n_documents: Number of documents of the text.
        seed: Seed of the order.
        calibration_seeds: Seeds of the calibration sets drawn from the same text; none if it is another text.
    """
    lateness = [n_documents] * n_documents
    for calibration_seed in calibration_seeds:
        for rank, number in enumerate(document_order(n_documents, calibration_seed)):
            lateness[number] = min(lateness[number], rank)
    kept = sorted(range(n_documents), key=lambda number: (-lateness[number], number))
    if calibration_seeds:
        kept = kept[: n_documents // 2]
    order = sorted(kept)
    random.Random(f"recovery-{seed}").shuffle(order)
    return order


def pack(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, order: Sequence[int], *, n_sequences: int, seq_len: int,
    add_bos: bool | None = None,
) -> Packed:  # fmt: skip
    """Join documents, each with its special tokens and an end-of-text token, and cut them into sequences.

    Args:
        texts: Documents.
        tokenizer: Tokenizer of the model, loaded with the same `add_bos`.
        order: Numbers of the documents to take, first to last.
        n_sequences: Number of sequences.
        seq_len: Tokens of each sequence.
        add_bos: Whether documents begin with BOS; None leaves special tokens to the tokenizer.

    Raises:
        UserError: If the documents have too few tokens.
    """
    stream: list[int] = []
    taken: list[int] = []
    end = tokenizer.eos_token_id
    for start in range(0, len(order), _CHUNK):
        numbers = order[start : start + _CHUNK]
        chunk = [texts[number] for number in numbers]
        tokenised = tokenizer(chunk, verbose=False, **special_tokens(add_bos))["input_ids"]
        for number, tokens in zip(numbers, tokenised, strict=True):
            if len(stream) >= n_sequences * seq_len:
                break
            stream += tokens if end is None or tokens[-1:] == [end] else [*tokens, end]
            taken.append(number)
    if len(stream) < n_sequences * seq_len:
        raise UserError(
            f"recovery: {n_sequences:,} sequences of {seq_len} tokens asked for, but the {len(order):,} documents have "
            f"{len(stream):,} tokens, enough for {len(stream) // seq_len:,}; give a smaller recovery.n_sequences or "
            "seq_len, or a longer recovery.text"
        )
    return Packed(np.asarray(stream[: n_sequences * seq_len], dtype=np.int64).reshape(n_sequences, seq_len), taken)


def check_evaluated(
    packed: Packed, manifest: Mapping[str, Any], text: str, text_field: str, requests: TokenisedRequests
) -> list[Compared]:
    """Refuse documents that are in what a model is evaluated on.

    Args:
        packed: What is fine-tuned on.
        manifest: Content of the model's manifest.
        text: File of the text.
        text_field: Its column.
        requests: Tokenised requests of the model.

    Returns:
        What was compared: with the perplexity texts and with the documents of tasks.

    Raises:
        UserError: Naming the first such document.
    """
    tokenizer = load_tokenizer(check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"])
    documents = document_tokens(read_texts(text, text_field), tokenizer, packed.documents)
    return [
        check_disjoint(documents, evaluated, name="documents that are fine-tuned on", use=USE)
        for evaluated in held_out_texts(requests, tokenizer)
    ]


def check_apart(
    packed: Packed,
    manifest: Mapping[str, Any],
    text: str,
    text_field: str,
    calibrations: Sequence[Mapping[str, Any]],
) -> None:
    """Refuse documents that a calibration set drawn from the same text begins with.

    Args:
        packed: What is fine-tuned on.
        manifest: Content of the model's manifest.
        text: File of the text.
        text_field: Its column.
        calibrations: `seed`, `seq_len` and `n_samples` of each calibration set drawn from it.

    Raises:
        UserError: With how many documents both have.
    """
    if not calibrations:
        return
    add_bos = calibrations[0].get("add_bos")
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=add_bos
    )
    texts, ours = read_texts(text, text_field), set(packed.documents)
    for one in calibrations:
        if both := ours.intersection(documents_drawn(texts, tokenizer, **one)):
            raise UserError(
                f"recovery: {len(both)} of its {len(ours)} documents are in the calibration set of seed {one['seed']}, "
                f"{one['n_samples']} sequences of {one['seq_len']} tokens; name another recovery.text"
            )
