"""How many tokens a model reads at once, and whether positions depend on that number.

Apart from `loading`, which also reads files, so that the core stays light.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel


def context_length(model: PreTrainedModel) -> int:
    """Return the longest context of a model, in tokens."""
    return int(model.config.max_position_embeddings)


def scales_with_length(config: PretrainedConfig) -> bool:
    """Whether rotary positions depend on the longest sequence of a batch (`dynamic` and `longrope`).

    transformers takes the largest position of the whole batch for the length, padding included.
    """
    return any("dynamic" in kind or kind == "longrope" for kind in _rope_types(config))


def length_thresholds(config: PretrainedConfig) -> list[int]:
    """Return the lengths (tokens) beyond which a sequence is read with other rotary frequencies, increasing.

    `longrope` has one set of factors for sequences up to `original_max_position_embeddings`, another for longer ones.
    (`dynamic` scales from `max_position_embeddings` on, which no sequence exceeds here.)
    """
    return sorted(
        {
            int(rope["original_max_position_embeddings"])
            for rope in _ropes(config)
            if rope.get("rope_type") == "longrope" and rope.get("original_max_position_embeddings")
        }
    )


def _rope_types(config: PretrainedConfig) -> Iterator[str]:
    yield from (str(rope["rope_type"]) for rope in _ropes(config) if rope.get("rope_type"))


def _ropes(config: PretrainedConfig) -> Iterator[dict[str, Any]]:
    """Yield the rotary parameters of a config: one dictionary, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in found.values() if isinstance(value, dict)]
    yield from nested or [found]
