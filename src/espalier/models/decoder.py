"""Access to the projections of a decoder layer, and the sizes of their groups.

`espalier.models.architecture` has the names of the modules. A layer has two blocks of prunable groups:

- Attention: group i is key/value head i with the n query heads that share it. These are the query heads
  i*n .. (i+1)*n - 1, because `repeat_kv` of transformers repeats each key/value head n times in a row.
- MLP: group i is hidden channel i.

In every projection of a block, the groups are consecutive slices of equal size along one dimension: rows (with the
bias), or columns in the projection that writes to the residual stream. The bias of the latter belongs to no group. The
query and key norms of Qwen3 have one weight per dimension of a head, which all heads share. They belong to no group
either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from torch import nn

from espalier.errors import UserError
from espalier.models.architecture import ATTENTION, BLOCKS, LAYERS, MLP

Block = Literal["attention", "mlp"]


class Role(NamedTuple):
    """One of the seven projections that every decoder layer has.

    Attributes:
        name: Name within its block, such as `q_proj`.
        block: The block that it belongs to.
        group_dim: Dimension of the weight along which groups lie: 0 for rows, 1 for columns.
    """

    name: str
    block: Block
    group_dim: Literal[0, 1]

    @property
    def path(self) -> str:
        """Name within the layer, such as `self_attn.q_proj`."""
        return f"{BLOCK_PATHS[self.block]}.{self.name}"


class Projection(NamedTuple):
    """A projection of one layer of a model, with its parameters.

    Attributes:
        layer: Index of the layer.
        name: Name of the role, such as `q_proj`.
        block: The block that it belongs to.
        weight: (out_features, in_features).
        bias: (out_features,), or None.
    """

    layer: int
    name: str
    block: Block
    weight: nn.Parameter
    bias: nn.Parameter | None


BLOCK_PATHS: dict[Block, str] = {"attention": ATTENTION.path, "mlp": MLP.path}
ROLES = tuple(
    Role(name, block, 1 if name == BLOCKS[block].writer else 0) for block in BLOCK_PATHS for name in BLOCKS[block].names
)
COLUMN_GROUPED = frozenset(role.name for role in ROLES if role.group_dim == 1)
"""Names of the projections whose groups are columns (inputs). Their bias belongs to no group."""


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder layers of a causal language model, first to last.

    Raises:
        UserError: If the architecture is not supported, because there are no layers under the usual name, or a layer
            cannot be divided into groups. Layers with a removed block cannot be divided either.
    """
    try:
        layers = list(model.get_submodule(LAYERS))
    except AttributeError:
        raise UserError(_refusal(model, f"it has no {LAYERS}")) from None
    for index, layer in enumerate(layers):
        if problem := _layer_problem(layer):
            raise UserError(_refusal(model, f"layer {index} {problem}"))
    return layers


def projections(model: nn.Module) -> Iterator[Projection]:
    """Yield the seven projections of every layer, layer by layer in the order of `ROLES`.

    Raises:
        UserError: If the architecture is not supported.
    """
    for index, layer in enumerate(decoder_layers(model)):
        for role in ROLES:
            linear = get_projection(layer, role)
            yield Projection(index, role.name, role.block, linear.weight, linear.bias)


def block_roles(block: Block) -> tuple[Role, ...]:
    """Return the roles of the projections of a block. The last projection writes to the residual stream."""
    return tuple(role for role in ROLES if role.block == block)


def get_block(layer: nn.Module, block: Block) -> nn.Module:
    """Return the attention or MLP module of a layer."""
    return layer.get_submodule(BLOCK_PATHS[block])


def get_projection(layer: nn.Module, role: Role) -> nn.Linear:
    """Return a projection of a layer."""
    return layer.get_submodule(role.path)


def head_dim(layer: nn.Module) -> int:
    """Return the size of a head, which may differ from hidden_size / heads."""
    return int(get_block(layer, "attention").head_dim)


def n_kv_groups(layer: nn.Module) -> int:
    """Return the number of KV groups of a layer, which is its number of key/value heads."""
    return _count_rows(layer, ATTENTION.counted_path) // head_dim(layer)


def n_query_heads_per_group(layer: nn.Module) -> int:
    """Return how many query heads share a key/value head."""
    columns = int(layer.get_submodule(ATTENTION.writer_path).weight.shape[1])  # query heads * head_dim
    return columns // _count_rows(layer, ATTENTION.counted_path)


def n_mlp_channels(layer: nn.Module) -> int:
    """Return the width of the MLP of a layer."""
    return _count_rows(layer, MLP.counted_path)


def n_groups(layer: nn.Module, block: Block) -> int:
    """Return the number of groups of a block: KV groups or MLP channels."""
    return n_kv_groups(layer) if block == "attention" else n_mlp_channels(layer)


def group_width(layer: nn.Module, role: Role) -> int:
    """Return how many rows (or columns) of a projection's weight belong to one group."""
    size = get_projection(layer, role).weight.shape[role.group_dim]
    return int(size) // n_groups(layer, role.block)


def params_per_group(layer: nn.Module, block: Block) -> int:
    """Return how many parameters one group has: its rows or columns of all weights, and the biases of its rows."""
    total = 0
    for role in block_roles(block):
        linear = get_projection(layer, role)
        total += linear.weight.numel()
        if role.group_dim == 0 and linear.bias is not None:
            total += linear.bias.numel()
    return total // n_groups(layer, block)


def _layer_problem(layer: nn.Module) -> str | None:
    """Return the reason why a layer cannot be divided into groups, to follow "layer 3"; None if it can be divided."""
    modules = dict(layer.named_modules())
    if missing := [role.path for role in ROLES if role.path not in modules]:
        return f"lacks {', '.join(missing)}"
    for role in ROLES:
        linear = modules[role.path]
        if not isinstance(linear, nn.Linear) or not linear.weight.is_floating_point():
            return f"has a {type(linear).__name__} with adapters or quantised weights as {role.path}"
    if not isinstance(getattr(get_block(layer, "attention"), "head_dim", None), int):
        return "does not say its head_dim"
    return _shape_problem(layer) or _leftover_problem(layer)


def _shape_problem(layer: nn.Module) -> str | None:
    """Describe projections whose shapes do not match, such as a q_proj that also computes gates; None if all match."""
    q, k, v, o, gate, up, down = (get_projection(layer, role).weight.shape for role in ROLES)
    if q[0] != o[1] or k[0] != v[0] or k[0] % head_dim(layer) or q[0] % k[0]:
        return f"has q, k, v, o of shapes {tuple(q)}, {tuple(k)}, {tuple(v)}, {tuple(o)}, which do not form KV groups"
    if gate[0] != up[0] or up[0] != down[1]:
        return f"has gate, up, down of shapes {tuple(gate)}, {tuple(up)}, {tuple(down)}, which do not form channels"
    return None


def _leftover_problem(layer: nn.Module) -> str | None:
    """Describe a parameter that cannot be divided between groups, such as OLMo 2's norm over all heads; None if none.

    Norms over one head are allowed, because all heads share them.
    """
    for block, path in BLOCK_PATHS.items():
        names = {role.name for role in block_roles(block)}
        for name, parameter in get_block(layer, block).named_parameters():
            shared = block == "attention" and "norm" in name and parameter.shape == (head_dim(layer),)
            if name.rpartition(".")[0] not in names and not shared:
                return f"has {path}.{name} of shape {tuple(parameter.shape)}, which belongs to no single group"
    return None


def _count_rows(layer: nn.Module, path: str) -> int:
    return int(layer.get_submodule(path).weight.shape[0])


def _refusal(model: nn.Module, problem: str) -> str:
    return (
        f"architecture {type(model).__name__} is not supported: {problem}; supported are decoders with separate "
        "q, k, v, o, gate, up and down projections (Llama, Mistral, Qwen2, Qwen3 and the like), in full precision"
    )
