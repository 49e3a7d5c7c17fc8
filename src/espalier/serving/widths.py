"""Round MLP widths of a pruned model up by channels of zeros: exact, since silu(0) * 0 = 0 and 0 * weight = 0."""

from __future__ import annotations

import torch
from torch import nn

from espalier.models.decoder import LAYERS, Block, block_roles, get_block, get_projection, n_mlp_channels


def has_groups(layer: nn.Module, block: Block) -> bool:
    """Whether a block of a layer keeps anything; what pruning leaves of an emptied one has no reading projections."""
    return hasattr(get_block(layer, block), block_roles(block)[0].name)


def pad_widths(model: nn.Module, multiple: int) -> int:
    """Pad the MLP of each layer with zeros to the next multiple, in place; a layer without MLP stays without.

    Padded weights are new parameters.

    Args:
        model: A decoder, pruned or not.
        multiple: What widths shall be multiples of.

    Returns:
        How many layers were padded.
    """
    padded = 0
    for layer in model.get_submodule(LAYERS):
        if not has_groups(layer, "mlp"):
            continue
        if lacking := -n_mlp_channels(layer) % multiple:
            _pad(layer, lacking)
            padded += 1
    return padded


def _pad(layer: nn.Module, lacking: int) -> None:
    for role in block_roles("mlp"):
        linear = get_projection(layer, role)
        linear.weight = _with_zeros(linear.weight, role.group_dim, lacking)
        if role.group_dim == 0 and linear.bias is not None:
            linear.bias = _with_zeros(linear.bias, 0, lacking)
        linear.out_features, linear.in_features = linear.weight.shape
    mlp = get_block(layer, "mlp")
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = n_mlp_channels(layer)


def _with_zeros(parameter: nn.Parameter, dim: int, lacking: int) -> nn.Parameter:
    shape = list(parameter.shape)
    shape[dim] = lacking
    zeros = parameter.new_zeros(shape)
    return nn.Parameter(torch.cat([parameter.detach(), zeros], dim), requires_grad=parameter.requires_grad)
