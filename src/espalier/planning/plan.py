"""Plans: the groups that each layer keeps, and the layers that are removed whole.

removed_params         = sum over layers of removed KV groups * kv_group_params + removed channels * mlp_channel_params
                         + fixed_params of layers that are removed whole
removed_param_fraction = removed_params / total_params

In a layer with experts, an MLP channel is one channel of each expert (`espalier.planning.experts`), and

removed_params = removed experts * expert_params + kept experts * removed channels * mlp_channel_params / n_experts

JSON stores the kept groups of a block as a bit mask in base64, beside readable counts. The first group is the highest
bit of the first byte, and the last byte is padded with zeros. 14,336 channels take about 2.4 kB. A layer that is
removed whole keeps no groups and has `"removed": true`; without this key, its norms and output biases stay. A layer
with experts has `experts`, and `expert_channels` if its experts lose channels: a mask over the channels of all kept
experts, expert by expert.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError
from espalier.models.kept_experts import KeptExperts
from espalier.models.sizes import ModelSizes
from espalier.planning.groups import ATTENTION_ID, GroupTable
from espalier.planning.stock import KeptLayer

if TYPE_CHECKING:
    from espalier.planning.experts import ChannelOrder

REMEDY = "make the plan again"
REMOVED = "removed"
"""Key of the layers that are removed whole."""
EXPERTS, EXPERT_CHANNELS = "experts", "expert_channels"
"""Keys of layers with experts."""


@dataclass(frozen=True)
class Plan:
    """The number of KV groups and MLP channels of each layer before pruning, and the sorted indices of the kept ones.

    Each of these attributes has one entry per layer of the unpruned model. `removed_layers` are the increasing indices
    of the layers that are removed whole; they keep no groups.

    `n_experts` are the experts of each layer before pruning, 0 in a dense layer; empty for a dense model.
    `kept_experts` is what each layer with experts keeps of them, by its index; layers that are removed whole are left
    out. The number of kept MLP channels of such a layer is that of each expert.
    """

    n_kv_groups: tuple[int, ...]
    n_mlp_channels: tuple[int, ...]
    kept_kv_groups: tuple[tuple[int, ...], ...]
    kept_mlp_channels: tuple[tuple[int, ...], ...]
    removed_layers: tuple[int, ...] = ()
    n_experts: tuple[int, ...] = ()
    kept_experts: Mapping[int, KeptExperts] = field(default_factory=dict)

    @classmethod
    def from_mask(
        cls, groups: GroupTable, sizes: ModelSizes, removed: NDArray[np.bool_], order: ChannelOrder | None = None
    ) -> Plan:
        """Return the plan that removes the groups marked in `removed`, (n_groups,).

        Args:
            groups: The model's groups.
            sizes: The model's sizes.
            removed: Mask of the groups to remove.
            order: Order of the channels of experts; None if no expert loses channels.

        Raises:
            ValueError: If the shape or dtype of `removed` is wrong.
        """
        if removed.shape != (len(groups),) or removed.dtype != np.bool_:
            raise ValueError(f"a mask over {len(groups)} groups is needed")
        kept = np.flatnonzero(~removed)
        part = groups.layer[kept] * 2 + (groups.block[kept] != ATTENTION_ID)
        ends = np.searchsorted(part, np.arange(2 * sizes.n_layers), side="right")
        blocks = [tuple(indices.tolist()) for indices in np.split(groups.group[kept], ends[:-1])]
        plan = cls(*_group_counts(sizes), tuple(blocks[0::2]), tuple(blocks[1::2]), **_all_experts(sizes))
        return plan if order is None else plan._with_expert_channels(order)

    def _with_expert_channels(self, order: ChannelOrder) -> Plan:
        """Return the plan with the channels of each expert in the place of MLP channels in an order of importance.

        Which of these is kept says nothing about a single expert, so only their number stays in `kept_mlp_channels`.
        """
        kept, counted = dict(self.kept_experts), list(self.kept_mlp_channels)
        for layer, of_layer in self.kept_experts.items():
            channels = self.kept_mlp_channels[layer]
            counted[layer] = tuple(range(len(channels)))
            if len(channels) < self.n_mlp_channels[layer]:
                kept[layer] = KeptExperts(of_layer.experts, order.kept(layer, channels))
        return replace(self, kept_mlp_channels=tuple(counted), kept_experts=kept)

    @classmethod
    def without_experts(cls, experts: GroupTable, sizes: ModelSizes, removed: NDArray[np.bool_]) -> Plan:
        """Return the plan that removes the experts marked in `removed`, (n_groups,), and keeps all else.

        Args:
            experts: All experts of the model.
            sizes: The model's sizes.
            removed: Mask of the experts to remove.
        """
        plan = cls.identity(sizes)
        kept = {
            layer: KeptExperts(tuple(experts.group[(experts.layer == layer) & ~removed].tolist()))
            for layer in plan.kept_experts
        }
        return replace(plan, kept_experts=kept)

    @classmethod
    def identity(cls, sizes: ModelSizes) -> Plan:
        """Return the plan that removes nothing."""
        n_kv_groups, n_mlp_channels = _group_counts(sizes)
        kept_kv_groups, kept_mlp_channels = (
            tuple(tuple(range(count)) for count in counts) for counts in (n_kv_groups, n_mlp_channels)
        )
        return cls(n_kv_groups, n_mlp_channels, kept_kv_groups, kept_mlp_channels, **_all_experts(sizes))

    @classmethod
    def without_layers(cls, sizes: ModelSizes, removed: NDArray[np.bool_]) -> Plan:
        """Return the plan that removes the layers marked in `removed`, (n_layers,), and keeps the others whole."""
        whole = cls.identity(sizes)
        experts = {layer: kept for layer, kept in whole.kept_experts.items() if not removed[layer]}
        return cls(
            whole.n_kv_groups,
            whole.n_mlp_channels,
            tuple(() if gone else kept for gone, kept in zip(removed, whole.kept_kv_groups, strict=True)),
            tuple(() if gone else kept for gone, kept in zip(removed, whole.kept_mlp_channels, strict=True)),
            tuple(np.flatnonzero(removed).tolist()),
            whole.n_experts,
            experts,
        )

    @property
    def n_layers(self) -> int:
        """Number of decoder layers before pruning."""
        return len(self.n_kv_groups)

    @property
    def kept_layers(self) -> tuple[int, ...]:
        """Indices of the layers that are not removed whole."""
        return tuple(layer for layer in range(self.n_layers) if layer not in self.removed_layers)

    @property
    def n_kept_kv_groups(self) -> tuple[int, ...]:
        """KV groups that each layer keeps."""
        return tuple(map(len, self.kept_kv_groups))

    @property
    def n_kept_mlp_channels(self) -> tuple[int, ...]:
        """MLP channels that each layer keeps."""
        return tuple(map(len, self.kept_mlp_channels))

    @property
    def n_kept_experts(self) -> tuple[int | None, ...]:
        """Experts that each layer keeps; 0 if it is removed whole, None in a dense layer."""
        counts = self.n_experts or (0,) * self.n_layers
        return tuple(
            len(self.kept_experts[layer].experts) if layer in self.kept_experts else 0 if count else None
            for layer, count in enumerate(counts)
        )

    @property
    def kept_units(self) -> tuple[Any, ...]:
        """Arguments of `espalier.models.surgery.prune` and `mask` after the model."""
        return self.kept_kv_groups, self.kept_mlp_channels, self.removed_layers, self.kept_experts

    @property
    def extreme_pruning_layers(self) -> int:
        """Number of layers whose MLP lost more than half of its channels, layers that are removed whole included.

        Channels of removed experts count as lost.
        """
        counts = zip(self.n_kept_mlp_channels, self.n_mlp_channels, self._expert_counts, strict=True)
        return sum(2 * kept * kept_experts < count * experts for kept, count, (kept_experts, experts) in counts)

    @property
    def _expert_counts(self) -> list[tuple[int, int]]:
        """Kept experts and all experts of each layer; (1, 1) in a dense layer."""
        counts = zip(self.n_kept_experts, self.n_experts or (0,) * self.n_layers, strict=True)
        return [(1, 1) if kept is None else (kept, count) for kept, count in counts]

    @property
    def kept(self) -> list[KeptLayer]:
        """What each layer of the unpruned model keeps."""
        counts = zip(self.n_kept_kv_groups, self.n_kept_mlp_channels, self.n_kept_experts, strict=True)
        return [
            KeptLayer(kv, mlp, index in self.removed_layers, experts) for index, (kv, mlp, experts) in enumerate(counts)
        ]

    def layer_params(self, sizes: ModelSizes) -> tuple[int, ...]:
        """Return the number of parameters that each layer keeps, including its fixed parameters unless it is removed.

        Raises:
            UserError: If the plan was made for a model of other sizes.
        """
        self._check_sizes(sizes)
        kept = zip(sizes.layers, self.n_kept_kv_groups, self.n_kept_mlp_channels, self.n_kept_experts, strict=True)
        return tuple(
            0 if index in self.removed_layers else sum(layer.kept_params(n_kv_groups, n_mlp_channels, n_experts))
            for index, (layer, n_kv_groups, n_mlp_channels, n_experts) in enumerate(kept)
        )

    def removed_params(self, sizes: ModelSizes) -> int:
        """Return the number of parameters that the plan removes.

        Raises:
            UserError: If the plan was made for a model of other sizes.
        """
        kept = sum(self.layer_params(sizes)) + sizes.other_params
        return sizes.total_params - kept

    def removed_param_fraction(self, sizes: ModelSizes) -> float:
        """Return the removed parameters as a fraction of all parameters of the model.

        Raises:
            UserError: If the plan was made for a model of other sizes.
        """
        return self.removed_params(sizes) / sizes.total_params

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        blocks = zip(self.n_kv_groups, self.kept_kv_groups, self.n_mlp_channels, self.kept_mlp_channels, strict=True)
        return {
            "n_layers": self.n_layers,
            "layers": [
                {
                    "layer": index,
                    **({REMOVED: True} if index in self.removed_layers else {}),
                    "kv_groups": _pack(n_kv, kept_kv),
                    "mlp_channels": _pack(n_mlp, kept_mlp),
                    **self._experts_dict(index),
                }
                for index, (n_kv, kept_kv, n_mlp, kept_mlp) in enumerate(blocks)
            ],
        }

    def _experts_dict(self, layer: int) -> dict[str, Any]:
        """Return what a layer keeps of its experts as JSON values; empty for a dense layer."""
        if not self.n_experts or not self.n_experts[layer]:
            return {}
        kept = self.kept_experts.get(layer, KeptExperts(()))
        values = {EXPERTS: _pack(self.n_experts[layer], kept.experts)}
        if kept.channels is not None:
            width = self.n_mlp_channels[layer]
            numbers = [place * width + channel for place, own in enumerate(kept.channels) for channel in own]
            values[EXPERT_CHANNELS] = _pack(len(kept.experts) * width, numbers)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Read the JSON values that `to_dict` returned.

        Raises:
            UserError: If a key is missing or has a value of a wrong type, or if counts and masks disagree.
        """
        kv_groups, mlp_channels, removed, experts = _read_blocks(values)
        return cls(
            n_kv_groups=tuple(block.n for block in kv_groups),
            n_mlp_channels=tuple(block.n for block in mlp_channels),
            kept_kv_groups=tuple(block.kept() for block in kv_groups),
            kept_mlp_channels=tuple(block.kept() for block in mlp_channels),
            removed_layers=tuple(removed),
            n_experts=tuple(0 if one is None else one.n for one in experts) if any(experts) else (),
            kept_experts={
                layer: one.kept(mlp_channels[layer])
                for layer, one in enumerate(experts)
                if one is not None and layer not in removed
            },
        )

    def _check_sizes(self, sizes: ModelSizes) -> None:
        experts = tuple(layer.n_experts for layer in sizes.layers) if sizes.has_experts else ()
        if self.n_experts != experts:
            raise UserError(
                f"plan: the layers have {self.n_experts or 'no'} experts in the plan and {experts or 'none'} in the "
                "model; use the plan with the model it was made for"
            )
        planned, given = (
            zip(self.n_kv_groups, self.n_mlp_channels, strict=True),
            zip(*_group_counts(sizes), strict=True),
        )
        for index, (ours, theirs) in enumerate(zip_longest(planned, given)):
            if ours != theirs:
                raise UserError(
                    f"plan: layer {index} has (KV groups, MLP channels) {ours} in the plan and {theirs} in the model; "
                    "use the plan with the model it was made for"
                )


def kept_layers(values: Mapping[str, Any]) -> list[KeptLayer]:
    """Return what each layer of the unpruned model keeps, from the JSON values of a plan.

    All values of the plan are checked.

    Raises:
        UserError: If a key is missing or has a value of a wrong type, or if counts and masks disagree.
    """
    kv_groups, mlp_channels, removed, experts = _read_blocks(values)
    return [
        KeptLayer(kv.n_kept, mlp.n_kept, index in removed, None if of_experts is None else of_experts.n_kept)
        for index, (kv, mlp, of_experts) in enumerate(zip(kv_groups, mlp_channels, experts, strict=True))
    ]


def _read_blocks(
    values: Mapping[str, Any],
) -> tuple[list[_BlockMask], list[_BlockMask], list[int], list[_ExpertMask | None]]:
    """Read and check the KV groups, MLP channels and experts of each layer, and the layers that are removed whole."""
    n_layers, layers = _value(values, "n_layers", int, "plan"), _value(values, "layers", list, "plan")
    numbers = [_value(layer, "layer", int, f"plan.layers[{index}]") for index, layer in enumerate(layers)]
    if numbers != list(range(n_layers)):
        raise UserError(f"plan: n_layers is {n_layers}, but layers are numbered {numbers}; {REMEDY}")
    kv_groups = [_read_block(layer, "kv_groups", index) for index, layer in enumerate(layers)]
    mlp_channels = [_read_block(layer, "mlp_channels", index) for index, layer in enumerate(layers)]
    removed = [index for index, layer in enumerate(layers) if _is_removed(layer, f"plan.layers[{index}]")]
    for index in removed:
        if kv_groups[index].n_kept or mlp_channels[index].n_kept:
            raise UserError(f"plan.layers[{index}] is removed, but keeps groups; {REMEDY}")
    experts = [_read_experts(layer, index, mlp_channels[index]) for index, layer in enumerate(layers)]
    return kv_groups, mlp_channels, removed, experts


def _is_removed(layer: Mapping[str, Any], where: str) -> bool:
    return REMOVED in layer and bool(_value(layer, REMOVED, bool, where))


def _group_counts(sizes: ModelSizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the number of KV groups and the number of MLP channels of each layer."""
    layers = sizes.layers
    return tuple(layer.n_kv_groups for layer in layers), tuple(layer.n_mlp_channels for layer in layers)


def _pack(count: int, kept: Sequence[int]) -> dict[str, Any]:
    """Return the count and the bit mask of the kept groups as JSON values."""
    mask = np.zeros(count, dtype=bool)
    mask[list(kept)] = True
    return {"n": count, "n_kept": len(kept), "mask": base64.b64encode(np.packbits(mask).tobytes()).decode()}


class _BlockMask(NamedTuple):
    """Bit mask of the kept groups of one block.

    The bits are decoded only when needed: consolidating tables reads millions of groups and only counts them.
    """

    n: int
    n_kept: int
    bits: bytes

    def kept(self) -> tuple[int, ...]:
        """Return the indices of the kept groups."""
        return tuple(np.flatnonzero(np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8))).tolist())


class _ExpertMask(NamedTuple):
    """Bit masks of the kept experts of a layer, and of their channels; None if they keep all."""

    experts: _BlockMask
    channels: _BlockMask | None

    @property
    def n(self) -> int:
        return self.experts.n

    @property
    def n_kept(self) -> int:
        return self.experts.n_kept

    def kept(self, of_each: _BlockMask) -> KeptExperts:
        """Return the indices of the kept experts and channels, given the mask of the MLP channels of the layer."""
        experts = self.experts.kept()
        if self.channels is None:
            return KeptExperts(experts)
        places, channels = np.divmod(np.array(self.channels.kept(), dtype=np.int64), of_each.n)
        return KeptExperts(experts, tuple(tuple(channels[places == place].tolist()) for place in range(len(experts))))


def _read_experts(layer: Mapping[str, Any], index: int, of_each: _BlockMask) -> _ExpertMask | None:
    """Read and check what a layer keeps of its experts; None if it has none."""
    if EXPERTS not in layer:
        return None
    experts = _read_block(layer, EXPERTS, index)
    channels = _read_block(layer, EXPERT_CHANNELS, index) if EXPERT_CHANNELS in layer else None
    if channels is not None:
        bits = np.unpackbits(np.frombuffer(channels.bits, dtype=np.uint8))[: channels.n]
        is_whole = experts.n_kept and channels.n == experts.n_kept * of_each.n
        n_each = bits.reshape(experts.n_kept, -1).sum(axis=1) if is_whole else ()
        if set(n_each) != {of_each.n_kept}:
            raise UserError(
                f"plan.layers[{index}].{EXPERT_CHANNELS}: each of the {experts.n_kept} kept experts must keep "
                f"{of_each.n_kept} of {of_each.n} channels; {REMEDY}"
            )
    elif of_each.n_kept != of_each.n and experts.n_kept:
        raise UserError(f"plan.layers[{index}] has no {EXPERT_CHANNELS}, but its experts lose some; {REMEDY}")
    return _ExpertMask(experts, channels)


def _all_experts(sizes: ModelSizes) -> dict[str, Any]:
    """Return the attributes of a plan that keeps all experts; none for a dense model."""
    if not sizes.has_experts:
        return {}
    counts = tuple(layer.n_experts for layer in sizes.layers)
    kept = {layer: KeptExperts(tuple(range(count))) for layer, count in enumerate(counts) if count}
    return {"n_experts": counts, "kept_experts": kept}


def _read_block(layer: Mapping[str, Any], block: str, index: int) -> _BlockMask:
    """Read and check the JSON values that `_pack` returned."""
    where = f"plan.layers[{index}].{block}"
    values = _value(layer, block, dict, f"plan.layers[{index}]")
    count, n_kept = _value(values, "n", int, where), _value(values, "n_kept", int, where)
    try:
        bits = base64.b64decode(_value(values, "mask", str, where), validate=True)
    except ValueError as error:
        raise UserError(f"{where}.mask is not base64 ({error}); {REMEDY}") from None
    if count < 0 or len(bits) != -(-count // 8):
        raise UserError(f"{where}.mask has {len(bits)} bytes for {count} groups; {REMEDY}")
    found = _BlockMask(count, n_kept, bits)
    mask = int.from_bytes(bits, "big")
    if mask & ((1 << 8 * len(bits) - count) - 1):
        raise UserError(f"{where}.mask keeps group {found.kept()[-1]}, but there are {count}; {REMEDY}")
    if mask.bit_count() != n_kept:
        raise UserError(f"{where}.n_kept is {n_kept}, but the mask keeps {mask.bit_count()}; {REMEDY}")
    return found


def _value(values: object, key: str, kind: type, where: str) -> Any:
    """Return the value of a key, and check its type."""
    if not isinstance(values, Mapping) or key not in values:
        raise UserError(f"{where} has no {key}; {REMEDY}")
    if not isinstance(values[key], kind):
        raise UserError(f"{where}.{key} is {values[key]!r}, not of type {kind.__name__}; {REMEDY}")
    return values[key]
