"""Texts of an evaluation, for the check that no model is calibrated or trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espalier.calibration.overlap import HeldOutTexts
from espalier.evaluation.tokenised_requests import TokenisedRequests

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def texts_left_out(requests: TokenisedRequests) -> list[str]:
    """Return the reasons why documents of an evaluation are not among its held-out texts, one sentence each.

    The requests have the documents of multiple-choice tasks. Those of generative tasks are read during an evaluation.

    Args:
        requests: Tokenised requests of a model.
    """
    names = requests.recipe.get("settings", {}).get("protocol", {}).get("tasks", [])
    there = {key.task for key in requests.requests}
    if there.issuperset(names):
        return []
    from espalier.evaluation.tasks import leaf_tasks, packaged_entries  # slow to import, and seldom needed

    absent = [leaf for leaf in leaf_tasks(names, packaged_entries(names)) if leaf not in there]
    return [f"task documents: those of {name}, which is answered with a text, are not compared" for name in absent]


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
