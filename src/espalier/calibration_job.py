"""What jobs on calibration text do: draw sequences, load the model, run the pass."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from espalier.calibration import Tokens, draw_sequences
from espalier.files import read_json
from espalier.importance.collect import Collected, collect_importance
from espalier.importance.memory import PassSettings
from espalier.ladder import ladder, prior_samples
from espalier.models.described import load_described
from espalier.models.loading import load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.priors import measure_priors
from espalier.texts import read_texts

logger = logging.getLogger(__name__)


def collect_of_job(
    *,
    manifest: str,
    text: str,
    sequences: dict[str, Any],
    counts: dict[str, Any],
    dtype: str,
    resources: dict[str, Any],
    threads: int,
    criterion: str,
) -> Collected:
    """Collect importances, and gradient statistics where the criterion takes gradients.

    Args:
        manifest: File of the model's manifest.
        text: File of the calibration text.
        sequences: `text_field`, `seed` and `seq_len`.
        counts: `largest` and `extra` sample counts.
        dtype: Type of the weights.
        resources: `device`, `gpu`, `token_budget`, `layers_per_pass` (0: as many as fit) and `checkpointing`.
        threads: CPU threads.
        criterion: A criterion that reads text.

    Raises:
        UserError: If the text is too short, or the model cannot be loaded or run.
    """
    torch.set_num_threads(threads)
    model, tokens = _load(manifest, text, sequences, dtype, resources, counts["largest"])
    settings = PassSettings(
        resources["token_budget"], resources["layers_per_pass"] or None, bool(resources["checkpointing"])
    )
    steps = ladder(counts["largest"], counts["extra"])
    return collect_importance(model, tokens, steps, criterion=criterion, settings=settings)


def priors_of_job(
    *,
    manifest: str,
    text: str,
    sequences: dict[str, Any],
    counts: dict[str, Any],
    dtype: str,
    resources: dict[str, Any],
    threads: int,
) -> dict[str, Any]:
    """Measure priors: columns of the priors table, for every sample count of the ladder.

    Args:
        manifest: File of the model's manifest.
        text: File of the calibration text.
        sequences: `text_field`, `seed` and `seq_len`.
        counts: `largest` and `extra` sample counts, and `prior_samples` as configured.
        dtype: Type of the weights.
        resources: `device`, `gpu` and `token_budget`.
        threads: CPU threads.

    Raises:
        UserError: If the text is too short, or the model cannot be loaded or run.
    """
    torch.set_num_threads(threads)
    configured = counts["prior_samples"]
    n_sequences = prior_samples(counts["largest"], configured)
    model, tokens = _load(manifest, text, sequences, dtype, resources, n_sequences)
    measured = measure_priors(model, tokens, token_budget=resources["token_budget"])
    tables = [
        measured.rows(n_samples, prior_samples(n_samples, configured))
        for n_samples in ladder(counts["largest"], counts["extra"])
    ]
    return {column: np.concatenate([table[column] for table in tables]) for column in tables[0]}


def load_sequences(manifest: dict[str, Any], text: str, sequences: dict[str, Any], n_samples: int) -> Tokens:
    """Draw calibration sequences with the tokenizer of a model.

    Args:
        manifest: Content of the model's manifest.
        text: File of the calibration text.
        sequences: `text_field`, `seed` and `seq_len`.
        n_samples: Number of sequences.

    Returns:
        Token ids, (n_samples, seq_len).

    Raises:
        UserError: If the text is too short, or the model has changed.
    """
    tokenizer = load_tokenizer(check_unchanged(manifest), trust_remote_code=manifest["trust_remote_code"])
    return draw_sequences(
        read_texts(text, sequences["text_field"]),
        tokenizer,
        n_samples=n_samples,
        seq_len=sequences["seq_len"],
        seed=sequences["seed"],
    )


def _load(
    manifest: str, text: str, sequences: dict[str, Any], dtype: str, resources: dict[str, Any], n_samples: int
) -> tuple[PreTrainedModel, torch.Tensor]:
    """Draw sequences, then load the model: what can be refused is refused before a GPU is used."""
    described = read_json(manifest)
    tokens = load_sequences(described, text, sequences, n_samples)
    logger.info("%d sequences of %d tokens", *tokens.shape)
    model = load_described(described, dtype=dtype, device=resources["device"], gpus=resources.get("gpu", 1))
    return model, torch.from_numpy(tokens)
