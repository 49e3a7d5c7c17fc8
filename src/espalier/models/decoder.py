"""Access to the projections of a decoder layer, and the sizes of their groups.

`espalier.models.architecture` has the names of the modules. A layer has two blocks of prunable groups:

- Attention: group i is key/value head i with the n query heads that share it. These are the query heads
  i*n .. (i+1)*n - 1, because `repeat_kv` of transformers repeats each key/value head n times in a row.
- MLP: group i is hidden channel i.

In every projection of a block, the groups are consecutive slices of equal size along one dimension: rows (with the
bias), or columns in the projection that writes to the residual stream. The bias of the latter belongs to no group. The
query and key norms of Qwen3 have one weight per dimension of a head, which all heads share. They belong to no group
either.

Phi-3 and GLM have fused projections, whose rows are those of several projections one below the other, called parts.
There, the groups are slices of every part.

The MLP of a layer may be a mixture of experts (`espalier.models.experts`). Then each expert has its own gate, up and
down, and group i of the MLP is one channel of each expert.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from torch import nn

from espalier.errors import UserError
from espalier.models.architecture import (
    ATTENTION,
    BLOCKS,
    EXPERTS,
    LAYERS,
    LAYOUTS,
    MLP,
    BlockNames,
    find_layout,
)
from espalier.models.experts import (
    experts_problem,
    find_experts,
    get_experts,
    get_router,
    has_experts,
    n_expert_channels,
)

Block = Literal["attention", "mlp"]


class Role(NamedTuple):
    """A projection of a decoder layer: one of the seven usual ones, or a fused one.

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
        weight: (out_features, in_features). Of an expert, a slice of a parameter.
        bias: (out_features,), or None.
        parts: Rows of each part if the projection is fused; empty if it has one part.
        expert: Index of the expert that the projection belongs to, or `ROUTER` for the router, which has one row per
            expert; None in a dense block.
        n_experts: Number of experts of the layer.
    """

    layer: int
    name: str
    block: Block
    weight: nn.Parameter
    bias: nn.Parameter | None
    parts: tuple[int, ...] = ()
    expert: int | None = None
    n_experts: int = 0


ROUTER = -1
"""`Projection.expert` of a router."""
BLOCK_PATHS: dict[Block, str] = {"attention": ATTENTION.path, "mlp": MLP.path}


def _roles(block: Block, layout: BlockNames) -> tuple[Role, ...]:
    return tuple(Role(name, block, 1 if name == layout.writer else 0) for name in layout.names)


ROLES = tuple(role for block in BLOCK_PATHS for role in _roles(block, BLOCKS[block]))
"""The seven usual projections."""
ALL_ROLES = tuple(dict.fromkeys(role for block in BLOCK_PATHS for one in LAYOUTS[block] for role in _roles(block, one)))
"""All projections of all layouts."""
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
    """Yield the projections of every layer, layer by layer: attention first, in each block the writer last.

    Raises:
        UserError: If the architecture is not supported.
    """
    for index, layer in enumerate(decoder_layers(model)):
        for block in BLOCK_PATHS:
            for role in block_roles(layer, block):
                linear, parts = get_projection(layer, role), part_sizes(layer, role)
                yield Projection(index, role.name, block, linear.weight, linear.bias, parts if len(parts) > 1 else ())
        if has_experts(layer):
            yield from _expert_projections(index, layer)


def _expert_projections(index: int, layer: nn.Module) -> Iterator[Projection]:
    """Yield gate and up, and down, of each expert, and the router. The weights of experts are slices of a parameter."""
    experts, width = get_experts(layer), n_expert_channels(layer)
    readers, writers = (getattr(experts, name).detach() for name in (EXPERTS.reader, EXPERTS.writer))
    n = len(readers)
    for number, (reader, writer) in enumerate(zip(readers, writers, strict=True)):
        yield Projection(index, EXPERTS.reader, "mlp", reader, None, (width, width), number, n)
        yield Projection(index, EXPERTS.writer, "mlp", writer, None, (), number, n)
    yield Projection(index, EXPERTS.router.rpartition(".")[2], "mlp", get_router(layer).weight, None, (), ROUTER, n)


def layout_of(layer: nn.Module, block: Block) -> BlockNames | None:
    """Return the layout of a block; None if it has none, because it lost all groups or is not supported."""
    path = BLOCK_PATHS[block]
    return find_layout(block, [f"{path}.{name}" for name, _ in layer.get_submodule(path).named_children()])


def block_roles(layer: nn.Module, block: Block) -> tuple[Role, ...]:
    """Return the roles of the projections of a block. The last projection writes to the residual stream.

    A block that lost all groups has no roles.
    """
    layout = layout_of(layer, block)
    return _roles(block, layout) if layout else ()


def part_sizes(layer: nn.Module, role: Role) -> tuple[int, ...]:
    """Return the rows (or columns) of each part of a projection: one number unless it is fused."""
    size = int(get_projection(layer, role).weight.shape[role.group_dim])
    layout = layout_of(layer, role.block)
    if role.group_dim == 1 or layout is None:
        return (size,)
    width = int(layer.get_submodule(layout.writer_path).weight.shape[1])
    return layout.part_sizes(role.name, size, width)


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
    return _count_rows(layer, "attention") // head_dim(layer)


def n_query_heads_per_group(layer: nn.Module) -> int:
    """Return how many query heads share a key/value head."""
    columns = int(layer.get_submodule(ATTENTION.writer_path).weight.shape[1])  # query heads * head_dim
    return columns // _count_rows(layer, "attention")


def n_mlp_channels(layer: nn.Module) -> int:
    """Return the width of the MLP of a layer, or of each expert."""
    return n_expert_channels(layer) if has_experts(layer) else _count_rows(layer, "mlp")


def n_groups(layer: nn.Module, block: Block) -> int:
    """Return the number of groups of a block: KV groups or MLP channels."""
    return n_kv_groups(layer) if block == "attention" else n_mlp_channels(layer)


def group_width(layer: nn.Module, role: Role) -> int:
    """Return how many rows (or columns) of a projection's weight belong to one group."""
    size = get_projection(layer, role).weight.shape[role.group_dim]
    return int(size) // n_groups(layer, role.block)


def params_per_group(layer: nn.Module, block: Block) -> int:
    """Return how many parameters one group has: its rows or columns of all weights, and the biases of its rows."""
    if block == "mlp" and has_experts(layer):
        experts = get_experts(layer)
        total = sum(int(getattr(experts, name).numel()) for name in (EXPERTS.reader, EXPERTS.writer))
        return total // n_groups(layer, block)
    total = 0
    for role in block_roles(layer, block):
        linear = get_projection(layer, role)
        total += linear.weight.numel()
        if role.group_dim == 0 and linear.bias is not None:
            total += linear.bias.numel()
    return total // n_groups(layer, block)


def _layer_problem(layer: nn.Module) -> str | None:
    """Return the reason why a layer cannot be divided into groups, to follow "layer 3"; None if it can be divided."""
    modules = dict(layer.named_modules())
    layouts = {block: find_layout(block, modules) for block in BLOCK_PATHS}
    if find_experts(layer) is not None:
        if problem := experts_problem(layer):
            return problem
        layouts["mlp"] = MLP  # stands for the experts, which have been checked
    lacking = [block for block, layout in layouts.items() if layout is None]
    if missing := [path for block in lacking for path in BLOCKS[block].paths if path not in modules]:
        return f"lacks {', '.join(missing)}"
    for role in (role for block in BLOCK_PATHS for role in block_roles(layer, block)):
        linear = modules[role.path]
        if not isinstance(linear, nn.Linear) or not linear.weight.is_floating_point():
            return f"has a {type(linear).__name__} with adapters or quantised weights as {role.path}"
    if not isinstance(getattr(get_block(layer, "attention"), "head_dim", None), int):
        return "does not say its head_dim"
    return _shape_problem(layer) or _leftover_problem(layer)


def _shape_problem(layer: nn.Module) -> str | None:
    """Describe projections whose shapes do not match, such as a q_proj that also computes gates; None if all match."""
    (q, k, v), o = _reader_rows(layer, "attention"), _writer_columns(layer, "attention")
    if q != o or k != v or k == 0 or k % head_dim(layer) or q % k or not _is_divided(layer, "attention"):
        return f"has {_name_shapes(layer, 'attention')}, which do not form KV groups"
    if has_experts(layer):
        return None
    (gate, up), down = _reader_rows(layer, "mlp"), _writer_columns(layer, "mlp")
    if gate != up or up != down or not _is_divided(layer, "mlp"):
        return f"has {_name_shapes(layer, 'mlp')}, which do not form channels"
    return None


def _reader_rows(layer: nn.Module, block: Block) -> list[int]:
    """Return the rows of the queries, keys and values, or of gate and up."""
    return [size for role in block_roles(layer, block)[:-1] for size in part_sizes(layer, role)]


def _writer_columns(layer: nn.Module, block: Block) -> int:
    writer = get_projection(layer, block_roles(layer, block)[-1])
    return int(writer.weight.shape[1])


def _is_divided(layer: nn.Module, block: Block) -> bool:
    """Return whether the parts of the readers are all of their rows."""
    rows = sum(int(get_projection(layer, role).weight.shape[0]) for role in block_roles(layer, block)[:-1])
    return rows == sum(_reader_rows(layer, block))


def _name_shapes(layer: nn.Module, block: Block) -> str:
    """Name the projections of a block and their shapes, such as `q, v of shapes (8, 4), (4, 4)`."""
    roles = block_roles(layer, block)
    shapes = ", ".join(str(tuple(get_projection(layer, role).weight.shape)) for role in roles)
    return f"{', '.join(role.name.removesuffix('_proj') for role in roles)} of shapes {shapes}"


def _leftover_problem(layer: nn.Module) -> str | None:
    """Describe a parameter that cannot be divided between groups, such as OLMo 2's norm over all heads; None if none.

    Norms over one head are allowed, because all heads share them.
    """
    for block, path in BLOCK_PATHS.items():
        names = {role.name for role in block_roles(layer, block)}
        if block == "mlp" and has_experts(layer):
            known = (f"{EXPERTS.path}.", f"{EXPERTS.router}.", *(f"{path}.{name}." for name in EXPERTS.whole))
            left = [
                name for name, _ in get_block(layer, block).named_parameters() if not f"{path}.{name}".startswith(known)
            ]
            if left:
                return f"has {path}.{left[0]}, which belongs to no expert"
            continue
        for name, parameter in get_block(layer, block).named_parameters():
            shared = block == "attention" and "norm" in name and parameter.shape == (head_dim(layer),)
            if name.rpartition(".")[0] not in names and not shared:
                return f"has {path}.{name} of shape {tuple(parameter.shape)}, which belongs to no single group"
    return None


def _count_rows(layer: nn.Module, block: Block) -> int:
    """Return the rows of the projection that counts the groups of a block; of a fused one, the rows of its last part.

    Raises:
        AttributeError: If the block has no projections, because it lost all groups.
    """
    layout = layout_of(layer, block)
    if layout is None:
        raise AttributeError(f"{BLOCK_PATHS[block]} has no projections of a known layout")
    return part_sizes(layer, next(role for role in _roles(block, layout) if role.name == layout.counted))[-1]


def _refusal(model: nn.Module, problem: str) -> str:
    return (
        f"architecture {type(model).__name__} is not supported: {problem}; supported are decoders with separate "
        "q, k, v, o, gate, up and down projections (Llama, Mistral, Qwen2, Qwen3 and the like), with q, k, v or "
        "gate, up fused (Phi-3, GLM), or with experts (Mixtral, Qwen3-MoE), in full precision"
    )
