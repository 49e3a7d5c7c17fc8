"""How many tokens a model reads at once; apart from `loading`, which also reads files, so that the core stays light."""

from __future__ import annotations

from transformers import PreTrainedModel


def context_length(model: PreTrainedModel) -> int:
    """Return the longest context of a model, in tokens."""
    return int(model.config.max_position_embeddings)
