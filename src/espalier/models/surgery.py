"""Remove groups and layers from a decoder in memory, or mask them: set their weights to zero.

KV group i of a layer consists of the rows of key/value head i in `k_proj` and `v_proj`, the rows in `q_proj` of the
query heads that share it, the biases of these rows, and the matching columns of `o_proj`. MLP channel i consists of row
i of `gate_proj` and `up_proj` with their biases, and column i of `down_proj`. In a fused projection (Phi-3, GLM), they
are the same rows of each part. Nothing else is removed. Norms and the
biases of `o_proj` and `down_proj` belong to no group and remain, even if a block loses all of its groups. A layer that
is removed whole loses these too (`espalier.models.depth`). An expert is its tensors and its row of the router
(`espalier.models.experts`).

The sizes of heads and MLPs in the model's config are not changed. It has one head count and one MLP width for all
layers, and these may differ between pruned layers. The number of layers in the config is changed with the layers.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from espalier.errors import UserError
from espalier.models.decoder import (
    Block,
    Role,
    block_roles,
    decoder_layers,
    get_block,
    get_projection,
    group_width,
    n_groups,
    params_per_group,
    part_sizes,
)
from espalier.models.depth import check_removed_layers, remove_layers
from espalier.models.experts import (
    check_kept,
    cut_experts,
    has_experts,
    mask_experts,
    n_expert_channels,
    n_experts,
    params_per_expert,
)
from espalier.models.kept_experts import KeptExperts
from espalier.models.pruned_blocks import RemovedBlock, resize_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KeptGroups = dict[Block, list[int]]
"""Indices of the groups that each block of one layer keeps, in increasing order."""


def prune(
    model: nn.Module,
    kept_kv_groups: Sequence[Sequence[int]],
    kept_mlp_channels: Sequence[Sequence[int]],
    removed_layers: Sequence[int] = (),
    kept_experts: Mapping[int, KeptExperts] | None = None,
) -> None:
    """Keep the given groups of a transformers decoder and remove all others, in place.

    Weights and biases that change become new parameters with their own memory. Create optimisers only afterwards.
    Blocks that keep all groups are not changed.

    Args:
        model: A causal language model as loaded, not yet pruned.
        kept_kv_groups: Indices of the KV groups to keep, in increasing order, for each layer. An empty sequence removes
            the attention block.
        kept_mlp_channels: Indices of the MLP channels to keep, in increasing order, for each layer. An empty sequence
            removes the MLP block.
        removed_layers: Indices of the layers to remove whole, in increasing order. They keep no groups.
        kept_experts: What layers with experts keep of them, by the index of the layer; a layer that is not given keeps
            all of them whole. In such a layer, only the number of MLP channels counts in `kept_mlp_channels`, and each
            expert keeps the channels given here.

    Raises:
        UserError: If the architecture is not supported, a block was already removed, weights are not in memory, or the
            groups do not fit the model. The model is then unchanged.
        RuntimeError: If the result has wrong shapes, a weight that is not finite, or the wrong number of parameters.
            The model is then partly pruned.
    """
    layers = _unpruned_layers(model)
    plan = _check_groups(layers, kept_kv_groups, kept_mlp_channels, removed_layers)
    experts = _check_experts(layers, plan, removed_layers, kept_experts or {})
    n_expected = _count_parameters(model)
    for index, (layer, kept) in enumerate(zip(layers, plan, strict=True)):
        if index in removed_layers:
            n_expected -= _count_parameters(layer)
            continue
        if index in experts:
            n_expected -= _cut_experts(layer, experts[index], index)
        for block, groups in kept.items():
            if block == "mlp" and has_experts(layer):
                continue
            n_expected -= (n_groups(layer, block) - len(groups)) * params_per_group(layer, block)
            shapes = _shapes_after(layer, block, len(groups))
            _cut_block(layer, block, groups)
            _check_block(layer, shapes, index)
    remove_layers(model, removed_layers)
    if (n_params := _count_parameters(model)) != n_expected:
        raise RuntimeError(f"the pruned model has {n_params:,} parameters instead of {n_expected:,}")


def mask(
    model: nn.Module,
    kept_kv_groups: Sequence[Sequence[int]],
    kept_mlp_channels: Sequence[Sequence[int]],
    removed_layers: Sequence[int] = (),
    kept_experts: Mapping[int, KeptExperts] | None = None,
) -> None:
    """Set the weights and biases that `prune` would remove to zero, in place. Shapes do not change.

    The masked model computes the same outputs as the pruned model. `prune` describes the arguments. A layer all of
    whose parameters are zero adds nothing to the residual stream. The router never chooses a removed expert: its logit
    is minus infinity, whatever the weights.

    Raises:
        UserError: As for `prune`. The model is then unchanged.
    """
    layers = _unpruned_layers(model)
    plan = _check_groups(layers, kept_kv_groups, kept_mlp_channels, removed_layers)
    for index, kept_of_layer in _check_experts(layers, plan, removed_layers, kept_experts or {}).items():
        mask_experts(layers[index], kept_of_layer)
    with torch.no_grad():
        for index in removed_layers:
            for parameter in layers[index].parameters():
                parameter.zero_()
    for layer, kept in zip(layers, plan, strict=True):
        for block, groups in kept.items():
            if block == "mlp" and has_experts(layer):
                continue
            removed = sorted(set(range(n_groups(layer, block))) - set(groups))
            for role in block_roles(layer, block):
                _mask_projection(layer, role, removed)


def copy_sharing_tensors(model: PreTrainedModel) -> PreTrainedModel:
    """Copy the modules of a model. The copy shares all parameters and buffers, until it is pruned or padded."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _unpruned_layers(model: nn.Module) -> list[nn.Module]:
    if any(isinstance(module, RemovedBlock) for module in model.modules()):
        raise UserError("the model is already pruned: it has blocks without weights; load the base model again")
    layers = decoder_layers(model)
    if any(parameter.is_meta for layer in layers for parameter in layer.parameters()):
        raise UserError("some weights of the model are not in memory (device meta); load it without offloading")
    return layers


def _check_groups(
    layers: Sequence[nn.Module],
    kept_kv_groups: Sequence[Sequence[int]],
    kept_mlp_channels: Sequence[Sequence[int]],
    removed_layers: Sequence[int],
) -> list[KeptGroups]:
    """Check the indices of the groups to keep and of the layers to remove; return the groups of each layer."""
    check_removed_layers(len(layers), removed_layers)
    plan: list[KeptGroups] = [{} for _ in layers]
    blocks: dict[Block, tuple[str, Sequence[Sequence[int]]]] = {
        "attention": ("kept_kv_groups", kept_kv_groups),
        "mlp": ("kept_mlp_channels", kept_mlp_channels),
    }
    for block, (what, kept) in blocks.items():
        if len(kept) != len(layers):
            raise UserError(
                f"{what}: got {len(kept)} layers, but the model has {len(layers)}; make the plan from this model"
            )
        for index, (layer, groups) in enumerate(zip(layers, kept, strict=True)):
            plan[index][block] = _check_indices(f"{what}[{index}]", groups, n_groups(layer, block))
    if keeping := [index for index in removed_layers if any(plan[index].values())]:
        raise UserError(f"removed_layers: layer {keeping[0]} is removed, but keeps groups; make the plan again")
    return plan


def _check_experts(
    layers: Sequence[nn.Module],
    plan: Sequence[KeptGroups],
    removed_layers: Sequence[int],
    kept_experts: Mapping[int, KeptExperts],
) -> dict[int, KeptExperts]:
    """Check what layers keep of their experts, and return it for each layer that loses some of them."""
    for index, kept in kept_experts.items():
        if not (0 <= index < len(layers) and has_experts(layers[index])) or index in removed_layers:
            raise UserError(f"kept_experts: layer {index} of the model has no experts; make the plan from this model")
        if problem := check_kept(f"kept_experts[{index}]", kept, layers[index]):
            raise UserError(problem)
    for index, layer in enumerate(layers):
        if not has_experts(layer) or index in removed_layers:
            continue
        channels = kept_experts[index].channels if index in kept_experts else None
        width = n_groups(layer, "mlp") if channels is None else len(channels[0])
        if len(plan[index]["mlp"]) != width:
            raise UserError(
                f"kept_mlp_channels[{index}]: got {len(plan[index]['mlp'])} channels, but each expert keeps {width}; "
                "make the plan again"
            )
    return dict(kept_experts)


def _cut_experts(layer: nn.Module, kept: KeptExperts, index: int) -> int:
    """Cut the experts of a layer, check them, and return the number of removed parameters."""
    before = _count_parameters(layer)
    channels = n_expert_channels(layer) if kept.channels is None else len(kept.channels[0])
    gone = n_experts(layer) - len(kept.experts)
    per_channel = params_per_group(layer, "mlp") // n_experts(layer)
    expected = before - gone * params_per_expert(layer)
    expected -= len(kept.experts) * (n_expert_channels(layer) - channels) * per_channel
    cut_experts(layer, kept)
    if n_experts(layer) != len(kept.experts) or n_expert_channels(layer) != channels:
        raise RuntimeError(f"layer {index}: its experts have wrong shapes after pruning")
    if not all(bool(parameter.isfinite().all()) for parameter in get_block(layer, "mlp").parameters()):
        raise RuntimeError(f"layer {index}: its experts have weights that are not finite; check the base model")
    return before - expected


def _check_indices(what: str, groups: Sequence[int], n: int) -> list[int]:
    if any(isinstance(group, bool | np.bool_) for group in groups):
        raise UserError(f"{what}: got a mask of true and false; give the indices of what is kept")
    indices = [operator.index(group) for group in groups]
    if any(following <= index for index, following in itertools.pairwise(indices)):
        raise UserError(f"{what}: indices must increase, each given once; sort them and drop duplicates")
    if indices and (indices[0] < 0 or indices[-1] >= n):
        wrong = indices[0] if indices[0] < 0 else indices[-1]
        raise UserError(f"{what}: got index {wrong}, but there are {n} (0 to {n - 1}); make the plan from this model")
    return indices


def _cut_block(layer: nn.Module, block: Block, groups: list[int]) -> None:
    """Remove all groups of a block except `groups`.

    `resize_block` gives the projections new parameters with arbitrary values. The kept slices of the old parameters are
    then copied into them.
    """
    linears = [(role, get_projection(layer, role)) for role in block_roles(layer, block)]
    old = [(role, _positions(layer, role, groups), linear.weight, linear.bias) for role, linear in linears]
    unchanged = len(groups) == n_groups(layer, block)
    resize_block(layer, block, len(groups))
    if unchanged or not groups:
        return
    for role, positions, weight, bias in old:
        linear = get_projection(layer, role)
        _copy_slices(weight, role.group_dim, positions, linear.weight)
        if role.group_dim == 0 and bias is not None:
            _copy_slices(bias, 0, positions, linear.bias)


def _copy_slices(parameter: nn.Parameter, dim: int, positions: torch.Tensor, into: nn.Parameter) -> None:
    """Copy the slices at `positions` along `dim` into another parameter.

    The slices are copied, because a view would keep the memory of the whole old parameter.
    """
    torch.index_select(parameter.detach(), dim, positions, out=into.detach())


def _mask_projection(layer: nn.Module, role: Role, removed: list[int]) -> None:
    linear = get_projection(layer, role)
    positions = _positions(layer, role, removed)
    with torch.no_grad():
        linear.weight.index_fill_(role.group_dim, positions, 0)
        if role.group_dim == 0 and linear.bias is not None:
            linear.bias.index_fill_(0, positions, 0)


def _positions(layer: nn.Module, role: Role, groups: list[int]) -> torch.Tensor:
    """Return the indices of the rows (or columns) of groups, (len(groups) * group_width,), part by part."""
    device, n, start = get_projection(layer, role).weight.device, n_groups(layer, role.block), 0
    positions = []
    for size in part_sizes(layer, role):
        width = size // n
        first = start + torch.tensor(groups, dtype=torch.long, device=device) * width
        positions.append((first[:, None] + torch.arange(width, device=device)).flatten())
        start += size
    return torch.cat(positions)


def _shapes_after(layer: nn.Module, block: Block, n_kept: int) -> dict[Role, list[int]]:
    """Return the shape that each weight of a block must have with `n_kept` groups; empty if the block is removed."""
    shapes: dict[Role, list[int]] = {}
    for role in block_roles(layer, block) if n_kept else ():
        shapes[role] = list(get_projection(layer, role).weight.shape)
        shapes[role][role.group_dim] = n_kept * group_width(layer, role)
    return shapes


def _check_block(layer: nn.Module, shapes: dict[Role, list[int]], index: int) -> None:
    for role, shape in shapes.items():
        linear = get_projection(layer, role)
        if list(linear.weight.shape) != shape or [linear.out_features, linear.in_features] != shape:
            raise RuntimeError(f"layer {index}: {role.path} has shape {list(linear.weight.shape)} instead of {shape}")
        if linear.bias is not None and list(linear.bias.shape) != shape[:1]:
            raise RuntimeError(f"layer {index}: the bias of {role.path} does not have {shape[0]} elements")
        if not all(bool(parameter.isfinite().all()) for parameter in linear.parameters()):
            raise RuntimeError(f"layer {index}: {role.path} has weights that are not finite; check the base model")


def _count_parameters(model: nn.Module) -> int:
    """Return the number of parameters; tied parameters count once."""
    return sum(parameter.numel() for parameter in model.parameters())
