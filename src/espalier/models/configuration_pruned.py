"""Configs of pruned decoders: the config of the base model, and the sizes of each layer.

`per_layer_config` of transformers holds the sizes of each layer: num_attention_heads, num_key_value_heads,
intermediate_size, and `skip`, which lists the removed blocks ("attention", "mlp"; their sizes are 0). The top level
keeps the sizes of the base model. There is one class for each entry of the table of families in `architecture.py`, such
as `PrunedLlamaConfig`. This file is copied to exported model folders, so it imports only transformers, its dependencies
and `architecture.py`, which is copied with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.integrations.heterogeneity import AmbiguousGlobalPerLayerAttributeError

from .architecture import FAMILIES, Family


@contextmanager
def stock_sizes(config: PreTrainedConfig) -> Iterator[None]:
    """Let stock modelling code read the sizes of the base model during the block.

    Otherwise transformers raises an error when a size that differs between layers is read from the top level.
    """
    by_layer = config.to_dict()["per_layer_config"] if config.is_heterogeneous else None
    config.per_layer_config = None
    try:
        yield
    finally:
        config.per_layer_config = by_layer


def kept_groups(config: PreTrainedConfig) -> list[dict[str, int]]:
    """Return how many KV groups (`attention`) and MLP channels (`mlp`) each layer keeps."""
    kept = []
    for sizes in config.per_layer_config:
        skipped = getattr(sizes, "skip", ())
        kept.append(
            {
                "attention": 0 if "attention" in skipped else sizes.num_key_value_heads,
                "mlp": 0 if "mlp" in skipped else sizes.intermediate_size,
            }
        )
    return kept


def _check_layers(config: PreTrainedConfig) -> None:
    """Check that pruning the base model can result in the sizes of each layer.

    Raises:
        ValueError: If it cannot. The message names the layer.
    """
    with stock_sizes(config):
        n_query = config.num_attention_heads // config.num_key_value_heads
    for index, sizes in enumerate(config.per_layer_config):
        skipped = set(getattr(sizes, "skip", ()))
        if unknown := skipped - {"attention", "mlp"}:
            raise ValueError(f"per_layer_config[{index}].skip: got {sorted(unknown)}; allowed: attention, mlp")
        if "attention" not in skipped and sizes.num_attention_heads != n_query * sizes.num_key_value_heads:
            raise ValueError(
                f"per_layer_config[{index}]: {sizes.num_attention_heads} query heads on {sizes.num_key_value_heads} "
                f"key/value heads; the base model has {n_query} on each"
            )


def _per_layer_arguments(config: PreTrainedConfig, arguments: dict[str, Any]) -> dict[str, Any]:
    """Set `head_dim` and return the arguments for `__post_init__` of the stock config.

    In a pruned model, `head_dim` does not follow from the number of heads. The returned arguments make transformers
    write the sizes of every layer when it saves the config.
    """
    if not getattr(config, "head_dim", None):
        config.head_dim = arguments.pop("head_dim", None) or config.hidden_size // config.num_attention_heads
    return {"serialize_explicit_per_layer_config": True} | arguments


class _PerLayerSizes:
    """Mixin that raises an AttributeError when a size that differs between layers is read from the top level.

    Other programs read sizes with `getattr(config, name, None)` or `hasattr`. transformers raises a RuntimeError, which
    both let through. Its switch `allow_global_per_layer_attribute_access` would return the sizes of the base model,
    which are wrong.
    """

    def validate_rope(self) -> None:
        """Check the rotary parameters with the sizes of the base model, because some configs read the head count."""
        with stock_sizes(self):
            super().validate_rope()  # type: ignore[misc]

    def __getattribute__(self, name: str) -> Any:
        try:
            return super().__getattribute__(name)
        except AmbiguousGlobalPerLayerAttributeError:
            raise AttributeError(
                f"{name} differs between the layers of a pruned model; read config.per_layer_config[layer].{name}"
            ) from None


def _make(family: Family) -> type[PreTrainedConfig]:
    """Return the config class of a family."""

    @strict
    class Pruned(_PerLayerSizes, getattr(transformers, family.config)):  # type: ignore[misc]
        model_type = f"pruned_{getattr(transformers, family.config).model_type}"

        def __post_init__(self, **kwargs: Any) -> None:
            super().__post_init__(**_per_layer_arguments(self, kwargs))

        def __eq__(self, other: object) -> bool:
            """Compare all values; the comparison of a stock config would read sizes that differ between layers."""
            return type(other) is type(self) and bool(self.to_dict() == other.to_dict())

        __hash__ = None  # type: ignore[assignment]  # as of a stock config, which can be changed

        def validate_architecture(self) -> None:
            """Check the sizes of the layers."""
            _check_layers(self)

    Pruned.__name__ = Pruned.__qualname__ = f"Pruned{family.name}Config"
    Pruned.__doc__ = f"Config of a pruned {family.title}."
    return Pruned


_FAMILIES = {f"Pruned{family.name}Config": family for family in FAMILIES.values()}


def __getattr__(name: str) -> Any:
    """Make the config class of a family, such as `PrunedLlamaConfig`, when it is first used."""
    if name not in _FAMILIES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return globals().setdefault(name, _make(_FAMILIES[name]))
