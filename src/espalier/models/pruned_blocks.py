"""Resize or remove the blocks of a stock decoder layer.

`resize_block` is used both to prune a model in memory and to build a model from an exported folder. `architecture.py`
describes how groups lie in the projections. This file is copied to exported model folders, so it imports only torch and
`architecture.py`, which is copied with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .architecture import ATTENTION, BLOCKS, LAYOUTS, BlockNames, find_layout


class OutputBias(nn.Module):  # type: ignore[misc]
    """Replacement of an output projection without columns: returns its bias for every token."""

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.register_parameter("bias", bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the block's output, of the shape of its input: (batch, tokens, hidden)."""
        return self.bias.to(hidden_states.dtype).expand_as(hidden_states)

    def extra_repr(self) -> str:
        """Say what to do about LoRA on this name. The error of PEFT quotes this text."""
        return "bias of a removed block, without weights to adapt: give its full name in exclude_modules"


class RemovedBlock(nn.Module):  # type: ignore[misc]
    """Replacement of an MLP without channels.

    Parameters that belong to no group remain, under their old names in the state dict. Without a bias, there is no
    module under the name of the output projection, so that LoRA on modules of this name leaves the block out.
    """

    def __init__(self, module: nn.Module, names: BlockNames) -> None:
        super().__init__()
        for name, child in module.named_children():
            if name not in names.names and any(True for _ in child.parameters()):
                self.add_module(name, child)
        bias = module.get_submodule(names.writer).bias
        self.output_name = None if bias is None else names.writer
        if self.output_name:
            self.add_module(self.output_name, OutputBias(bias))
        self.train(module.training)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the bias of the output projection, or zero: (batch, tokens, hidden)."""
        if self.output_name is None:
            return torch.zeros_like(hidden_states)
        output: torch.Tensor = self.get_submodule(self.output_name)(hidden_states)
        return output


class RemovedAttention(RemovedBlock):
    """Replacement of attention without heads; it still counts tokens in the KV cache.

    transformers reads the number of cached tokens from layer 0 of the KV cache, and the sizes of the masks from the
    first layer of each type, full or sliding (`Cache.get_seq_length`, `create_causal_mask`). If such a layer wrote
    nothing to the cache, positions and masks of cached decoding would be silently wrong. Writing one zero per token
    keeps the count correct.
    """

    def __init__(self, module: nn.Module, names: BlockNames) -> None:
        super().__init__(module, names)
        self.layer_idx = module.layer_idx

    def forward(
        self,
        hidden_states: torch.Tensor,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return the bias of the output projection or zero, (batch, tokens, hidden), and no attention weights."""
        if past_key_values is not None:
            n_heads, width = self._cache_shape(past_key_values)
            placeholder = hidden_states.new_zeros(hidden_states.shape[0], n_heads, hidden_states.shape[1], width)
            past_key_values.update(placeholder, placeholder, self.layer_idx)
        return super().forward(hidden_states), None

    def _cache_shape(self, cache: Any) -> tuple[int, int]:
        """Return the number of heads and the head size of this layer's cache: (1, 1) unless it is preallocated."""
        layers = getattr(cache, "layers", ())
        keys = getattr(layers[self.layer_idx], "keys", None) if self.layer_idx < len(layers) else None
        return (1, 1) if keys is None or keys.dim() != 4 else (keys.shape[1], keys.shape[3])


class LayerConfig:
    """The config of the model with other sizes, for a stock module that reads sizes after it was made."""

    def __init__(self, config: Any, sizes: dict[str, int]) -> None:
        self.__dict__.update(sizes, _config=config)

    def __getattr__(self, name: str) -> Any:
        """Return the value of the model's config."""
        if name.startswith("__") or "_config" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self._config, name)


_REMOVED = {"attention": RemovedAttention, "mlp": RemovedBlock}


def resize_block(layer: nn.Module, block: str, n_groups: int) -> None:
    """Resize a block of a stock decoder layer to a number of groups, in place.

    If the number changes, weights and row biases become new parameters with arbitrary values and the same dtype, device
    and `requires_grad`. If it does not change, no parameter is modified.

    Args:
        layer: A decoder layer of transformers.
        block: `attention` or `mlp`.
        n_groups: Number of KV groups or MLP channels; 0 replaces the block by a `RemovedBlock`.
    """
    module = layer.get_submodule(BLOCKS[block].path)
    names = _layout(module, block)
    if n_groups == 0:
        setattr(layer, names.path, _REMOVED[block](module, names))
        return
    n_before = _count_groups(module, block)
    if n_groups != n_before:
        for name in names.names:
            _resize(module.get_submodule(name), 0 if name in names.readers else 1, n_groups, n_before)
        _update_size_attributes(module, block, n_groups)
    if names.config_sizes:
        n_heads = int(module.get_submodule(names.writer).weight.shape[1]) // int(module.head_dim)
        module.config = LayerConfig(module.config, dict.fromkeys(names.config_sizes, n_heads))


def _layout(module: nn.Module, block: str) -> BlockNames:
    """Return the layout of an attention or MLP module."""
    path = BLOCKS[block].path
    return find_layout(block, [f"{path}.{name}" for name, _ in module.named_children()]) or LAYOUTS[block][0]


def _count_groups(module: nn.Module, block: str) -> int:
    names = _layout(module, block)
    size = int(module.get_submodule(names.counted).weight.shape[0])
    rows = names.part_sizes(names.counted, size, int(module.get_submodule(names.writer).weight.shape[1]))[-1]
    return rows if block == "mlp" else rows // int(module.head_dim)


def _resize(linear: nn.Linear, dim: int, n_groups: int, n_before: int) -> None:
    shape = list(linear.weight.shape)
    shape[dim] = shape[dim] // n_before * n_groups
    linear.weight = _new_parameter(linear.weight, shape)
    if dim == 0 and linear.bias is not None:
        linear.bias = _new_parameter(linear.bias, shape[:1])
    linear.out_features, linear.in_features = shape


def _new_parameter(parameter: nn.Parameter, shape: list[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach().new_empty(shape), requires_grad=parameter.requires_grad)


def _update_size_attributes(module: nn.Module, block: str, n_groups: int) -> None:
    """Update the sizes that a module stores as attributes to the shapes of its weights.

    `num_key_value_groups` is the number of query heads per key/value head, which pruning does not change. Current
    transformers stores no head counts in its attention modules; older versions and code from the hub do.
    """
    if block == "mlp":
        sizes = {"intermediate_size": n_groups}
    else:
        n_heads = int(module.get_submodule(ATTENTION.writer).weight.shape[1]) // int(module.head_dim)
        sizes = {"num_heads": n_heads, "num_attention_heads": n_heads, "num_key_value_heads": n_groups}
    for name, size in sizes.items():
        if hasattr(module, name):
            setattr(module, name, size)
