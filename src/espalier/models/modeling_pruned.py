"""Pruned decoders: the stock models of transformers with layers of the sizes in their config.

This file is copied to exported model folders, so it imports only torch, transformers and files that are copied with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers import (
    LlamaForCausalLM,
    LlamaModel,
    MistralForCausalLM,
    MistralModel,
    PreTrainedConfig,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from .configuration_pruned import (
    PrunedLlamaConfig,
    PrunedMistralConfig,
    PrunedQwen2Config,
    PrunedQwen3Config,
    kept_groups,
    stock_sizes,
)
from .pruned_blocks import resize_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel as _Base
else:
    _Base = object  # at run time, each subclass also inherits from its stock class


class _Pruned(_Base):  # type: ignore[misc]
    """Mixin for a stock class, listed before it: builds the stock model, then resizes the blocks of its layers."""

    def __init__(self, config: PreTrainedConfig) -> None:
        with stock_sizes(config):
            super().__init__(config)
        for layer, kept in zip(self.base_model.layers, kept_groups(config), strict=True):
            for block, n_groups in kept.items():
                resize_block(layer, block, n_groups)
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    module._is_hf_initialized = False  # resized weights are not initialised  # noqa: SLF001
        self.post_init()


class PrunedLlamaModel(_Pruned, LlamaModel):  # type: ignore[misc]
    """A pruned Llama without its head."""

    config_class = PrunedLlamaConfig


class PrunedLlamaForCausalLM(_Pruned, LlamaForCausalLM):  # type: ignore[misc]
    """A pruned Llama."""

    config_class = PrunedLlamaConfig


class PrunedMistralModel(_Pruned, MistralModel):  # type: ignore[misc]
    """A pruned Mistral without its head."""

    config_class = PrunedMistralConfig


class PrunedMistralForCausalLM(_Pruned, MistralForCausalLM):  # type: ignore[misc]
    """A pruned Mistral."""

    config_class = PrunedMistralConfig


class PrunedQwen2Model(_Pruned, Qwen2Model):  # type: ignore[misc]
    """A pruned Qwen2 without its head."""

    config_class = PrunedQwen2Config


class PrunedQwen2ForCausalLM(_Pruned, Qwen2ForCausalLM):  # type: ignore[misc]
    """A pruned Qwen2."""

    config_class = PrunedQwen2Config


class PrunedQwen3Model(_Pruned, Qwen3Model):  # type: ignore[misc]
    """A pruned Qwen3 without its head."""

    config_class = PrunedQwen3Config


class PrunedQwen3ForCausalLM(_Pruned, Qwen3ForCausalLM):  # type: ignore[misc]
    """A pruned Qwen3."""

    config_class = PrunedQwen3Config
