"""What a model is evaluated on, as texts that it must not be made with."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerBase

from espalier.calibration.overlap import HeldOut
from espalier.evaluation.requests import TokenisedRequests


def held_out_texts(requests: TokenisedRequests, tokenizer: PreTrainedTokenizerBase) -> list[HeldOut]:
    """Return the perplexity texts, and the documents of tasks: each question with each of its choices.

    Args:
        requests: Tokenised requests of a model.
        tokenizer: Its tokenizer.
    """
    special = set(tokenizer.all_special_ids)
    documents = [np.concatenate([one.context, one.continuation]) for one in requests.requests.values()]
    return [
        HeldOut("perplexity texts", requests.texts.values(), special),
        HeldOut("task documents", documents, special),
    ]
