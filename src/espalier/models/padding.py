"""Pad the MLP widths of a model in memory, so that its matrix products run at the speed of the hardware.

A pruned layer keeps any number of MLP channels. The kernels for matrix products read memory in pieces of 16 bytes, and
a matrix whose rows do not begin at such a piece takes a slow path: on an H100, a bfloat16 product of width 7,337 ran at
103 TFLOP/s and one of width 7,344 at 793. A CPU with matrix instructions for half precision (AMX) reads lines of 64
bytes: there a ragged pruned model ran slower than the unpruned one (docs/benchmarks.md). Widths are therefore rounded
up with channels whose weights and biases are zero. Such a channel has gate(x) = up(x) = 0 and adds down[:, channel] *
act(0) * 0 = 0 to the output, so only the order of the sums changes.

KV groups need no padding, because every head size in use is a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from espalier.models.architecture import LAYERS
from espalier.models.decoder import Block, block_roles, get_block, get_projection, n_mlp_channels, part_sizes

ALIGNED_BYTES = {"cpu": 64, "cuda": 16}
"""Bytes of the pieces in which kernels read the rows of a matrix in half precision; on a GPU, in float32 too."""


def width_multiple(device: torch.device, dtype: torch.dtype) -> int:
    """Return the number that MLP widths should be multiples of: 16 bytes on a GPU, 64 bytes on a CPU.

    In float32 on a CPU, padding made nothing faster, so the number is 1 (docs/benchmarks.md).
    """
    if device.type == "cpu":
        return int(ALIGNED_BYTES["cpu"] // dtype.itemsize) if dtype.itemsize == 2 else 1
    return max(1, int(ALIGNED_BYTES["cuda"] // dtype.itemsize))


def has_groups(layer: nn.Module, block: Block) -> bool:
    """Return whether a block still has groups. A block that lost all groups has lost its input projections too."""
    return bool(block_roles(layer, block))


def pad_widths(model: nn.Module, multiple: int) -> int:
    """Pad the MLP width of each layer with zero channels to the next multiple, in place.

    Padded weights are new parameters. Layers without MLP channels are not changed.

    Args:
        model: A decoder, pruned or not.
        multiple: Number that every MLP width is rounded up to a multiple of.

    Returns:
        Number of padded layers.
    """
    n_padded = 0
    for layer in model.get_submodule(LAYERS):
        if not has_groups(layer, "mlp"):
            continue
        if n_missing := -n_mlp_channels(layer) % multiple:
            _pad(layer, n_missing)
            n_padded += 1
    return n_padded


def _pad(layer: nn.Module, n_missing: int) -> None:
    padded = [(role, part_sizes(layer, role)) for role in block_roles(layer, "mlp")]
    for role, parts in padded:
        linear = get_projection(layer, role)
        linear.weight = _with_zeros(linear.weight, role.group_dim, parts, n_missing)
        if role.group_dim == 0 and linear.bias is not None:
            linear.bias = _with_zeros(linear.bias, 0, parts, n_missing)
        linear.out_features, linear.in_features = linear.weight.shape
    mlp = get_block(layer, "mlp")
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = n_mlp_channels(layer)


def _with_zeros(parameter: nn.Parameter, dim: int, parts: Sequence[int], n_missing: int) -> nn.Parameter:
    """Append slices of zeros to each part of a parameter."""
    shape = list(parameter.shape)
    shape[dim] = n_missing
    zeros = parameter.new_zeros(shape)
    pieces = [piece for part in parameter.detach().split(list(parts), dim) for piece in (part, zeros)]
    return nn.Parameter(torch.cat(pieces, dim), requires_grad=parameter.requires_grad)
