"""Stock shapes: plans that stock model code loads, because all layers that remain have the same size.

A model has a stock shape if each remaining layer keeps the same number of KV groups and the same number of MLP
channels, at least one of each, and the stock config of its architecture accepts that number of heads. Layers with
experts keep the same number of experts, and of channels in each expert.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from espalier.models.architecture import EXPERT_FAMILIES, FAMILIES, Heads


class KeptLayer(NamedTuple):
    """How many KV groups and MLP channels a layer keeps, and whether it is removed whole.

    `n_experts` are the experts that it keeps, and then `n_mlp_channels` the channels of each; None in a dense layer.
    """

    n_kv_groups: int
    n_mlp_channels: int
    is_removed: bool
    n_experts: int | None = None


class StockShape(NamedTuple):
    """The shape of a model whose layers are all equal.

    Attributes:
        n_layers: Layers.
        n_kv_groups: KV groups of each layer.
        n_mlp_channels: MLP channels of each dense layer; None if there is none.
        n_experts: Experts of each layer with experts; None if there is none.
        n_expert_channels: Channels of each expert; None if there is none.
    """

    n_layers: int
    n_kv_groups: int
    n_mlp_channels: int | None
    n_experts: int | None = None
    n_expert_channels: int | None = None


class Obstacle(NamedTuple):
    """What keeps a plan from having a stock shape.

    Attributes:
        kind: `kv_groups`, `mlp_channels`, `experts` or `expert_channels` if the remaining layers differ in their
            number, `no_attention` or `no_mlp` if layers lost the block, `heads` if the stock class does not accept the
            number of heads.
        sizes: Layers (as text, such as `0, 3-5`) by the number that they keep, most frequent number first.
    """

    kind: Literal["kv_groups", "mlp_channels", "experts", "expert_channels", "no_attention", "no_mlp", "heads"]
    sizes: Mapping[int, str]

    def __str__(self) -> str:
        """Return the obstacle in English."""
        kept = "; ".join(f"{size:,} in {_in_words(layers)}" for size, layers in list(self.sizes.items())[:_SHOWN])
        more = f"; {len(self.sizes) - _SHOWN} more" if len(self.sizes) > _SHOWN else ""
        if self.kind == "heads":
            return f"its stock class does not accept {next(iter(self.sizes))} KV groups with this hidden size"
        if self.kind in {"no_attention", "no_mlp"}:
            block = "attention" if self.kind == "no_attention" else "MLP"
            layers = next(iter(self.sizes.values()))
            return f"{_in_words(layers)} {'has' if layers.isdigit() else 'have'} no {block}"
        what = {"kv_groups": "KV groups", "mlp_channels": "MLP channels"}.get(self.kind, self.kind.replace("_", " "))
        return f"{len(self.sizes)} different numbers of {what} ({kept}{more})"


_SHOWN = 3  # numbers that a message lists


def stock_shape(kept: Sequence[KeptLayer], kv_group_counts: Collection[int] | None = None) -> StockShape | None:
    """Return the shape of a plan, or None if it has no stock shape; `obstacles` describes the arguments."""
    if obstacles(kept, kv_group_counts):
        return None
    layers = [layer for layer in kept if not layer.is_removed]
    dense = next((layer.n_mlp_channels for layer in layers if layer.n_experts is None), None)
    of_experts = next(
        ((layer.n_experts, layer.n_mlp_channels) for layer in layers if layer.n_experts is not None), (None, None)
    )
    return StockShape(len(layers), layers[0].n_kv_groups, dense, *of_experts)


def obstacles(kept: Sequence[KeptLayer], kv_group_counts: Collection[int] | None = None) -> list[Obstacle]:
    """Return what keeps a plan from having a stock shape; empty if it has one.

    Args:
        kept: What each layer of the unpruned model keeps.
        kv_group_counts: Numbers of KV groups that the stock config accepts; None if all.
    """
    found = []
    layers = {number: layer for number, layer in enumerate(kept) if not layer.is_removed}
    kv_groups = _by_size({number: layer.n_kv_groups for number, layer in layers.items()})
    channels = _by_size({number: layer.n_mlp_channels for number, layer in layers.items() if layer.n_experts is None})
    of_experts = {number: layer for number, layer in layers.items() if layer.n_experts is not None}
    experts = _by_size({number: layer.n_experts or 0 for number, layer in of_experts.items()})
    expert_channels = _by_size({number: layer.n_mlp_channels for number, layer in of_experts.items()})
    if 0 in kv_groups:
        found.append(Obstacle("no_attention", {0: kv_groups[0]}))
    found += [Obstacle("no_mlp", {0: sizes[0]}) for sizes in (channels, expert_channels) if 0 in sizes]
    if len(kv_groups) > 1:
        found.append(Obstacle("kv_groups", kv_groups))
    if len(channels) > 1:
        found.append(Obstacle("mlp_channels", channels))
    if len(experts) > 1:
        found.append(Obstacle("experts", experts))
    if len(expert_channels) > 1:
        found.append(Obstacle("expert_channels", expert_channels))
    if not found and kv_group_counts is not None and not set(kv_groups) <= set(kv_group_counts):
        found.append(Obstacle("heads", kv_groups))
    return found


def stock_kv_group_counts(n_kv_groups: int, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the numbers of KV groups that the stock config of a model accepts.

    Some configs of transformers require that the hidden size is a multiple of the number of query heads. Some stock
    classes compute the size of a head from the number of heads, so no head can be removed. A model type that is not in
    the table of families is treated like Llama, which requires a multiple.

    Args:
        n_kv_groups: KV groups of each layer of the unpruned model.
        config: Content of the model's config.json, or the part of it in the manifest.
    """
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type) or EXPERT_FAMILIES.get(model_type)
    heads = family.heads if family else Heads.DIVISORS
    if heads == Heads.ALL:
        return (n_kv_groups,)
    counts = range(1, n_kv_groups + 1)
    if heads == Heads.ANY:
        return tuple(counts)
    n_query = int(config["num_attention_heads"]) // n_kv_groups
    return tuple(n for n in counts if int(config["hidden_size"]) % (n * n_query) == 0 or n == n_kv_groups)


def format_layer_ranges(layers: Iterable[int]) -> str:
    """Format layer numbers compactly, such as `0, 3-5`."""
    runs = [
        [layer for _, layer in run] for _, run in groupby(enumerate(sorted(layers)), key=lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _in_words(layers: str) -> str:
    return f"layer {layers}" if layers.isdigit() else f"layers {layers}"


def _by_size(sizes: Mapping[int, int]) -> dict[int, str]:
    """Return the layers by size, the most frequent size first, then the largest."""
    layers: dict[int, list[int]] = {}
    for number, size in sizes.items():
        layers.setdefault(size, []).append(number)
    order = sorted(layers, key=lambda size: (-len(layers[size]), -size))
    return {size: format_layer_ranges(layers[size]) for size in order}
