"""Jobs on calibration text: measure importance, measure priors, and check the text against the evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from espalier.calibration.importance import ImportanceTables, measure_importance
from espalier.calibration.overlap import OverlapComparison, check_no_overlap, document_tokens
from espalier.calibration.pass_size import PassSettings
from espalier.calibration.priors import measure_priors
from espalier.calibration.sample_counts import SampleCounts, n_prior_sequences
from espalier.calibration.sequences import SequenceSettings, TokenIds, draw_sequences, drawn_documents
from espalier.calibration.text_files import read_texts
from espalier.evaluation.held_out import held_out_texts
from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.files import read_json
from espalier.jobs.resources import JobResources
from espalier.models.from_manifest import load_from_manifest
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.models.vocabulary import check_token_ids, vocab_size_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationJob:
    """Inputs and settings of a job on calibration text.

    Attributes:
        manifest: File of the model's manifest.
        text: File of the calibration text.
        sequences: Sequences to draw, as many as the largest sample count.
        counts: Sample counts of the results.
        dtype: Dtype of the weights.
        resources: Resources of the job.
        threads: CPU threads.
    """

    manifest: str
    text: str
    sequences: SequenceSettings
    counts: SampleCounts
    dtype: str
    resources: JobResources
    threads: int

    @classmethod
    def from_snakemake(cls, snakemake: Any) -> CalibrationJob:
        """Create the job from the `snakemake` object of a script."""
        params, counts = snakemake.params, SampleCounts(**snakemake.params.counts)
        return cls(
            manifest=snakemake.input.manifest,
            text=snakemake.input.text,
            sequences=SequenceSettings(**params.sequences, n_samples=counts.largest),
            counts=counts,
            dtype=params.dtype,
            resources=JobResources.from_snakemake(snakemake),
            threads=snakemake.threads,
        )

    def load(self, sequences: SequenceSettings) -> tuple[PreTrainedModel, torch.Tensor]:
        """Draw sequences, then load the model. Errors in the text are therefore raised before a GPU is used.

        Args:
            sequences: Sequences to draw.

        Returns:
            The model, and token ids, (n_samples, seq_len).

        Raises:
            UserError: As `load_sequences`, or if the model cannot be loaded.
        """
        torch.set_num_threads(self.threads)
        manifest = read_json(self.manifest)
        tokens = load_sequences(manifest, self.text, sequences)
        logger.info("%d sequences of %d tokens", *tokens.shape)
        resources = self.resources
        model = load_from_manifest(manifest, dtype=self.dtype, device=resources.device, gpus=resources.gpus)
        return model, torch.from_numpy(tokens)


def importance_tables(job: CalibrationJob, criterion: str) -> ImportanceTables:
    """Measure importance by a criterion that reads text, and gradient statistics if the criterion takes gradients.

    Args:
        job: Inputs and settings of the job.
        criterion: Name of the criterion.

    Raises:
        UserError: As `CalibrationJob.load` and `measure_importance`.
    """
    model, tokens = job.load(job.sequences)
    resources = job.resources
    settings = PassSettings(resources.token_budget, resources.layers_per_pass or None, resources.checkpointing)
    return measure_importance(model, tokens, job.counts.snapshots, criterion=criterion, settings=settings)


def priors_table(job: CalibrationJob) -> dict[str, Any]:
    """Measure priors and return the columns of the priors table, with rows for every snapshot count.

    Raises:
        UserError: As `CalibrationJob.load` and `measure_priors`.
    """
    counts = job.counts
    largest = n_prior_sequences(counts.largest, counts.prior_samples)
    model, tokens = job.load(replace(job.sequences, n_samples=largest))
    measured = measure_priors(model, tokens, token_budget=job.resources.token_budget)
    tables = [
        measured.columns(n_samples, n_prior_sequences(n_samples, counts.prior_samples))
        for n_samples in counts.snapshots
    ]
    return {column: np.concatenate([table[column] for table in tables]) for column in tables[0]}


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
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=sequences.add_bos
    )
    tokens = draw_sequences(
        read_texts(text, sequences.text_field),
        tokenizer,
        n_samples=sequences.n_samples,
        seq_len=sequences.seq_len,
        seed=sequences.seed,
        add_bos=sequences.add_bos,
    )
    check_token_ids(tokens, vocab_size_of(manifest), "calibration")
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
