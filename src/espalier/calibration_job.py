"""What a job on calibration text begins with: the sequences, checked against the evaluation, and the model."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from espalier.calibration import check_disjoint, draw_sequences
from espalier.evaluation.requests import read_requests
from espalier.files import read_json
from espalier.models.loading import choose_device, load_model, load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.texts import read_texts

logger = logging.getLogger(__name__)


def calibration_job(
    *, manifest: str, requests: str, text: str, sequences: dict[str, Any], dtype: str, device: str, n_samples: int
) -> tuple[PreTrainedModel, torch.Tensor]:
    """Draw calibration sequences, then load the model: what can be refused is refused before a GPU is used.

    Args:
        manifest: Manifest of the model.
        requests: Tokenised requests of the evaluation, which the sequences must not overlap.
        text: Calibration text.
        sequences: `text_field`, `seed` and `seq_len`.
        dtype: Type of the weights.
        device: `auto`, `cpu` or `cuda`.
        n_samples: Number of sequences.

    Returns:
        The model, and token ids (n_samples, seq_len).

    Raises:
        UserError: If the text is too short or overlaps the evaluation, or the model cannot be loaded.
    """
    described = read_json(manifest)
    folder, trust = check_unchanged(described), described["trust_remote_code"]
    tokens = draw_sequences(
        read_texts(text, sequences["text_field"]),
        load_tokenizer(folder, trust_remote_code=trust),
        n_samples=n_samples,
        seq_len=sequences["seq_len"],
        seed=sequences["seed"],
    )
    evaluated = read_requests(requests)
    check_disjoint(tokens, evaluated.texts.values(), "a perplexity text")
    documents = ([*request.context, *request.continuation] for request in evaluated.requests.values())
    check_disjoint(tokens, documents, "a task document")
    logger.info("%d sequences of %d tokens", *tokens.shape)
    model = load_model(folder, dtype=dtype, device=choose_device(device), trust_remote_code=trust)
    return model, torch.from_numpy(tokens)
