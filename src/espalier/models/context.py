"""The longest context of a model, and whether its rotary positions depend on the length of a sequence.

These functions are not in `loading`, so that scoring does not import code that reads model files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from espalier.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def context_length(model: PreTrainedModel) -> int:
    """Return the longest context of a model, in tokens."""
    return int(model.config.max_position_embeddings)


def check_fits_context(model: PreTrainedModel, seq_len: int, key: str) -> None:
    """Check that sequences are not longer than the model's context.

    Args:
        model: The model.
        seq_len: Length of the sequences, in tokens.
        key: Key of the config that sets the length, for the message.

    Raises:
        UserError: If they are longer. The message gives both lengths.
    """
    limit = context_length(model)
    if seq_len > limit:
        raise UserError(f"{key}: got {seq_len}, but the model's context is {limit} tokens; give at most {limit}")


def context_of_manifest(manifest: Mapping[str, Any]) -> int:
    """Return the longest context of a model, in tokens, without loading its weights.

    If config.json does not give it, the default in the config class of transformers is returned.

    Args:
        manifest: Content of the model's manifest.
    """
    context = manifest["config"].get("max_position_embeddings")
    if context is None:
        from espalier.models.text_config import load_config

        config = load_config(manifest["folder"], trust_remote_code=manifest["trust_remote_code"])
        context = config.max_position_embeddings
    return int(context)


def scales_with_length(config: PretrainedConfig) -> bool:
    """Return whether rotary positions depend on the longest sequence of a batch (`dynamic` and `longrope`).

    transformers uses the largest position in the batch, padding included, as the length of every sequence.
    """
    return any("dynamic" in kind or kind == "longrope" for kind in _rope_types(config))


def length_thresholds(config: PretrainedConfig) -> list[int]:
    """Return the lengths (tokens), in increasing order, beyond which the rotary frequencies change.

    `longrope` has one set of factors for sequences up to `original_max_position_embeddings` and another set for longer
    sequences. `dynamic` changes the frequencies only beyond `max_position_embeddings`, which no sequence exceeds here.
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
    """Yield the rotary parameters of a config: one dictionary, or one for each layer type."""
    found = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in found.values() if isinstance(value, dict)]
    yield from nested or [found]
