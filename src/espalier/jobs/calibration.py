"""Jobs on calibration text: collect importance, measure priors, and check the text against the evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from espalier.calibration.importance import Collected, collect_importance
from espalier.calibration.ladder import ladder, prior_samples
from espalier.calibration.memory import PassSettings
from espalier.calibration.overlap import Compared, check_disjoint, document_tokens
from espalier.calibration.priors import measure_priors
from espalier.calibration.sequences import Tokens, documents_drawn, draw_sequences
from espalier.calibration.texts import read_texts
from espalier.evaluation.held_out import held_out_texts
from espalier.evaluation.requests import TokenisedRequests
from espalier.files import read_json
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
        sequences: `text_field`, `seed`, `seq_len` and, if the config sets it, `add_bos`.
        counts: Sample counts `largest` and `extra`. For priors also `prior_samples`, as configured.
        dtype: Dtype of the weights.
        resources: `device`, `gpu` and `token_budget`. For gradient passes also `layers_per_pass` (0 takes as many
            layers as fit) and `checkpointing`.
        threads: CPU threads.
    """

    manifest: str
    text: str
    sequences: Mapping[str, Any]
    counts: Mapping[str, Any]
    dtype: str
    resources: Mapping[str, Any]
    threads: int

    @classmethod
    def of(cls, snakemake: Any) -> CalibrationJob:
        """Create the job from the `snakemake` object of a script."""
        params = snakemake.params
        return cls(
            snakemake.input.manifest, snakemake.input.text, params.sequences, params.counts, params.dtype,
            dict(snakemake.resources.items()), snakemake.threads,
        )  # fmt: skip

    @property
    def steps(self) -> list[int]:
        """Sample counts of the results."""
        return ladder(self.counts["largest"], self.counts["extra"])

    def load(self, n_samples: int) -> tuple[PreTrainedModel, torch.Tensor]:
        """Draw sequences, then load the model. Errors in the text are therefore raised before a GPU is used.

        Args:
            n_samples: Number of sequences.

        Returns:
            The model, and token ids, (n_samples, seq_len).

        Raises:
            UserError: As `load_sequences`, or if the model cannot be loaded.
        """
        torch.set_num_threads(self.threads)
        manifest = read_json(self.manifest)
        tokens = load_sequences(manifest, self.text, self.sequences, n_samples)
        logger.info("%d sequences of %d tokens", *tokens.shape)
        resources = self.resources
        model = load_from_manifest(manifest, dtype=self.dtype, device=resources["device"], gpus=resources["gpu"])
        return model, torch.from_numpy(tokens)


def collect(job: CalibrationJob, criterion: str) -> Collected:
    """Collect importance by a criterion that reads text, and gradient statistics if the criterion takes gradients.

    Args:
        job: Inputs and settings of the job.
        criterion: Name of the criterion.

    Raises:
        UserError: As `CalibrationJob.load` and `collect_importance`.
    """
    model, tokens = job.load(job.counts["largest"])
    resources = job.resources
    settings = PassSettings(
        resources["token_budget"], resources["layers_per_pass"] or None, bool(resources["checkpointing"])
    )
    return collect_importance(model, tokens, job.steps, criterion=criterion, settings=settings)


def priors_table(job: CalibrationJob) -> dict[str, Any]:
    """Measure priors and return the columns of the priors table, with rows for every sample count of the ladder.

    Raises:
        UserError: As `CalibrationJob.load` and `measure_priors`.
    """
    configured = job.counts["prior_samples"]
    model, tokens = job.load(prior_samples(job.counts["largest"], configured))
    measured = measure_priors(model, tokens, token_budget=job.resources["token_budget"])
    tables = [measured.rows(n_samples, prior_samples(n_samples, configured)) for n_samples in job.steps]
    return {column: np.concatenate([table[column] for table in tables]) for column in tables[0]}


def load_sequences(manifest: Mapping[str, Any], text: str, sequences: Mapping[str, Any], n_samples: int) -> Tokens:
    """Draw calibration sequences with the tokenizer of a model.

    Args:
        manifest: Content of the model's manifest.
        text: File of the calibration text.
        sequences: `text_field`, `seed`, `seq_len` and, if the config sets it, `add_bos`.
        n_samples: Number of sequences.

    Returns:
        Token ids, (n_samples, seq_len).

    Raises:
        UserError: If the text cannot be read, too few documents are long enough, a token has no row in the model's
            embedding, or the model has changed since its manifest.
    """
    add_bos = sequences.get("add_bos")
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=add_bos
    )
    tokens = draw_sequences(
        read_texts(text, sequences["text_field"]),
        tokenizer,
        n_samples=n_samples,
        seq_len=sequences["seq_len"],
        seed=sequences["seed"],
        add_bos=add_bos,
    )
    check_token_ids(tokens, vocab_size_of(manifest), "calibration")
    return tokens


def check_sequences(
    manifest: Mapping[str, Any], requests: TokenisedRequests, text: str, settings: Sequence[Mapping[str, Any]]
) -> list[Compared]:
    """Check that calibration documents do not overlap with the texts on which a model is evaluated.

    Args:
        manifest: Content of the model's manifest.
        requests: Tokenised requests of the model.
        text: File of the calibration text.
        settings: Calibration settings on this text. Each has `text_field`, `seed`, `seq_len`, `n_samples` and, if the
            config sets it, `add_bos`. `add_bos` is read from the first one and must be the same in all.

    Returns:
        Two comparisons for each setting: with the perplexity texts, and with the documents of tasks.

    Raises:
        UserError: If documents overlap, the text cannot be read, too few documents are long enough, a token has no row
            in the model's embedding, or the model has changed since its manifest.
    """
    add_bos = settings[0].get("add_bos") if settings else None
    tokenizer = load_tokenizer(
        check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"], add_bos=add_bos
    )
    held_out, vocab_size = held_out_texts(requests, tokenizer), vocab_size_of(manifest)
    compared: list[Compared] = []
    for one in settings:
        texts, (n_samples, seq_len) = read_texts(text, one["text_field"]), (one["n_samples"], one["seq_len"])
        numbers = documents_drawn(
            texts, tokenizer, n_samples=n_samples, seq_len=seq_len, seed=one["seed"], add_bos=add_bos
        )
        documents = document_tokens(texts, tokenizer, numbers, seq_len)
        for tokens in documents.values():
            check_token_ids(tokens[:seq_len], vocab_size, "calibration")
        name = f"documents of {n_samples} sequences of {seq_len} tokens"
        compared += [check_disjoint(documents, evaluated, name=name) for evaluated in held_out]
    return compared
