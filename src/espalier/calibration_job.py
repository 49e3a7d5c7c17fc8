"""What a job on calibration text begins with: the sequences and the model."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from espalier.calibration import Tokens, draw_sequences
from espalier.files import read_json
from espalier.models.loading import choose_device, load_model, load_tokenizer
from espalier.models.manifest import check_unchanged
from espalier.texts import read_texts

logger = logging.getLogger(__name__)


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


def load_model_and_sequences(
    *, manifest: str, text: str, sequences: dict[str, Any], dtype: str, device: str, n_samples: int
) -> tuple[PreTrainedModel, torch.Tensor]:
    """Draw calibration sequences, then load the model: what can be refused is refused before a GPU is used.

    Args:
        manifest: File of the model's manifest.
        text: File of the calibration text.
        sequences: `text_field`, `seed` and `seq_len`.
        dtype: Type of the weights.
        device: `auto`, `cpu` or `cuda`.
        n_samples: Number of sequences.

    Returns:
        The model, and token ids (n_samples, seq_len).

    Raises:
        UserError: If the text is too short, or the model cannot be loaded.
    """
    described = read_json(manifest)
    tokens = load_sequences(described, text, sequences, n_samples)
    logger.info("%d sequences of %d tokens", *tokens.shape)
    model = load_model(
        described["folder"],
        dtype=dtype,
        device=choose_device(device),
        trust_remote_code=described["trust_remote_code"],
    )
    return model, torch.from_numpy(tokens)
