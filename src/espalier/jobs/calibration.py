"""What jobs on calibration text do: draw sequences, load the model, run the pass."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationJob:
    """What a job on calibration text is given.

    Attributes:
        manifest: File of the model's manifest.
        text: File of the calibration text.
        sequences: `text_field`, `seed`, `seq_len` and, where the config sets it, `add_bos`.
        counts: `largest` and `extra` sample counts; for priors also `prior_samples` as configured.
        dtype: Type of the weights.
        resources: `device`, `gpu` and `token_budget`; for passes also `layers_per_pass` (0: as many as fit) and
            `checkpointing`.
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
        """Build the job from the `snakemake` object of a script."""
        params = snakemake.params
        return cls(
            snakemake.input.manifest, snakemake.input.text, params.sequences, params.counts, params.dtype,
            dict(snakemake.resources.items()), snakemake.threads,
        )  # fmt: skip

    @property
    def steps(self) -> list[int]:
        """Sample counts at which results are taken."""
        return ladder(self.counts["largest"], self.counts["extra"])

    def load(self, n_samples: int) -> tuple[PreTrainedModel, torch.Tensor]:
        """Draw sequences, then load the model: what can be refused is refused before a GPU is used.

        Raises:
            UserError: If the text is too short, or the model cannot be loaded.
        """
        torch.set_num_threads(self.threads)
        manifest = read_json(self.manifest)
        tokens = load_sequences(manifest, self.text, self.sequences, n_samples)
        logger.info("%d sequences of %d tokens", *tokens.shape)
        resources = self.resources
        model = load_from_manifest(manifest, dtype=self.dtype, device=resources["device"], gpus=resources["gpu"])
        return model, torch.from_numpy(tokens)


def collect(job: CalibrationJob, criterion: str) -> Collected:
    """Collect importances by a criterion that reads text, and gradient statistics where it takes gradients.

    Raises:
        UserError: If the text is too short, or the model cannot be loaded or run.
    """
    model, tokens = job.load(job.counts["largest"])
    resources = job.resources
    settings = PassSettings(
        resources["token_budget"], resources["layers_per_pass"] or None, bool(resources["checkpointing"])
    )
    return collect_importance(model, tokens, job.steps, criterion=criterion, settings=settings)


def priors_table(job: CalibrationJob) -> dict[str, Any]:
    """Measure priors: columns of the priors table, for every sample count of the ladder.

    Raises:
        UserError: If the text is too short, or the model cannot be loaded or run.
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
        sequences: `text_field`, `seed`, `seq_len` and, where the config sets it, `add_bos`.
        n_samples: Number of sequences.

    Returns:
        Token ids, (n_samples, seq_len).

    Raises:
        UserError: If the text is too short, has a token that the model's embedding has no row for, or the model has
            changed.
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
    """Refuse calibration documents that are in what a model is evaluated on.

    Args:
        manifest: Content of the model's manifest.
        requests: Tokenised requests of the model.
        text: File of the calibration text.
        settings: `text_field`, `seed`, `seq_len`, `n_samples` and, where the config sets it, `add_bos` of each setting,
            all of one text.

    Returns:
        What was compared: for each setting, with the perplexity texts and with the documents of tasks.

    Raises:
        UserError: If documents overlap, the text is too short or has a token that the model's embedding has no row for,
            or the model has changed.
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
