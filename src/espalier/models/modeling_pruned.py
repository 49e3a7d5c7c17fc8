"""Pruned decoders: the stock models of transformers with layers of the sizes in their config.

There are two classes for each entry of the table of families in `architecture.py`, such as `PrunedLlamaForCausalLM` and
`PrunedLlamaModel`. This file is copied to exported model folders, so it imports only torch, transformers and files that
are copied with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers
from torch import nn
from transformers import PreTrainedConfig

from . import configuration_pruned
from .architecture import FAMILIES, ROTARY
from .configuration_pruned import kept_groups, stock_sizes
from .pruned_blocks import LayerConfig, resize_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedModel as _Base
else:
    _Base = object  # at run time, each subclass also inherits from its stock class


class _Pruned(_Base):  # type: ignore[misc]
    """Mixin for a stock class, listed before it: builds the stock model, then resizes the blocks of its layers."""

    def __init__(self, config: PreTrainedConfig) -> None:
        with stock_sizes(config):
            super().__init__(config)
            sizes = {"num_attention_heads": config.num_attention_heads}
        rotary: Any = getattr(self.base_model, ROTARY.rpartition(".")[2], None)
        if hasattr(rotary, "config"):  # some types of rotary positions read the head count of the config
            rotary.config = LayerConfig(rotary.config, sizes)
        for layer, kept in zip(self.base_model.layers, kept_groups(config), strict=True):
            for block, n_groups in kept.items():
                resize_block(layer, block, n_groups)
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    module._is_hf_initialized = False  # resized weights are not initialised  # noqa: SLF001
        self.post_init()


def _make(name: str) -> type[PreTrainedModel]:
    """Return the class of this name."""
    family, is_causal = _CLASSES[name]

    class Pruned(_Pruned, getattr(transformers, family.causal if is_causal else family.model)):  # type: ignore[misc]
        config_class = getattr(configuration_pruned, f"Pruned{family.name}Config")

    Pruned.__name__ = Pruned.__qualname__ = name
    Pruned.__doc__ = f"A pruned {family.title}." if is_causal else f"A pruned {family.title} without its head."
    return Pruned


_CLASSES = {
    f"Pruned{family.name}{'ForCausalLM' if is_causal else 'Model'}": (family, is_causal)
    for family in FAMILIES.values()
    for is_causal in (True, False)
}


def __getattr__(name: str) -> Any:
    """Make a class of a family, such as `PrunedLlamaForCausalLM`, when it is first used."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return globals().setdefault(name, _make(name))
