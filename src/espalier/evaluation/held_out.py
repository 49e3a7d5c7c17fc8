"""Texts of an evaluation, for the check that no model is calibrated or trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espalier.calibration.overlap import HeldOutTexts
from espalier.evaluation.tokenised_requests import TokenisedRequests

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def held_out_texts(requests: TokenisedRequests, tokenizer: PreTrainedTokenizerBase) -> list[HeldOutTexts]:
    """Return the texts of an evaluation: perplexity texts, and each question of the tasks with each of its choices.

    Args:
        requests: Tokenised requests of a model.
        tokenizer: Tokenizer of the model.
    """
    special = set(tokenizer.all_special_ids)
    documents = [np.concatenate([one.context, one.continuation]) for one in requests.requests.values()]
    return [
        HeldOutTexts("perplexity texts", requests.texts.values(), special),
        HeldOutTexts("task documents", documents, special),
    ]
