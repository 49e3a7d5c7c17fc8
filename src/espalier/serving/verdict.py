"""Serving verdicts: whether a target loads a pruned model as it is, after rounding, with stubs, or not at all.

Needs no torch and no weights.

Rounding pads MLP widths with channels of zeros. This is always possible and does not change the output, because
silu(0) * 0 = 0. Its cost is

    added_params           = sum over layers of (ceil(width / multiple) * multiple - width) * mlp_channel_params
                             (of kept experts only, where a layer has experts)
    removed_param_fraction = (removed_params - added_params) / total_params      (negative if more is added)

Layers without MLP channels are not padded. Parameters of stubs are not counted.

A stub is a block of zeros, written where a layer lost all groups of a block and the target requires the block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from espalier.messages.catalogue import Message, Value
from espalier.models.architecture import ATTENTION, FAMILIES, MLP
from espalier.models.sizes import ModelSizes
from espalier.planning.stock import KeptLayer, Obstacle, format_layer_ranges, obstacles, stock_kv_group_counts

FOLDER_TYPES = tuple(FAMILIES)
"""Values of `model_type` whose exported folders support layers of different shapes."""
VLLM_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose layers in exported folders fit what was read in the code of vLLM."""
GGUF_TYPES = ("llama", "mistral", "qwen2")
"""Values of `model_type` whose GGUF files with layers of different shapes were compared with the pruned model."""
GGUF_STOCK_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose GGUF files of a stock shape were compared with the pruned model."""


@dataclass(frozen=True)
class Target:
    """A serving target: a file format together with the program that loads it.

    Attributes:
        name: Code of the target; the reports look up its title.
        basis: How the rules of the target are known: `run` (tested), `read` (read in its source code, not run) or
            `rule` (neither).
        model_types: Supported values of `model_type`; empty if all are supported.
        stock_types: Supported values of `model_type` for plans with a stock shape; empty if all are supported, None if
            the target makes no difference between stock and other shapes.
        multiple_of: MLP widths must be multiples of this number; 1 allows any width.
        attention_stub: Which layers without attention need a stub: `none`, the `first` layer, or `every` layer.
        mlp_stub: Channels of the stub that a layer without MLP needs; 0 if it needs none.
        drops_empty_layers: Whether layers that lost both blocks are left out and the other layers renumbered.
        quantised: Whether the inputs of o_proj are also quantised in blocks of `multiple_of` numbers.
        supports_block_norms: Whether norms over queries and keys inside attention are supported.
        keeps_output_bias: Whether the output bias of a removed block can stay without the block. If not, the layer
            needs a stub.
        supports_sliding_window: Whether a sliding window shorter than the context is supported.
        uniform_layers: Whether all layers must have the same shapes.
        all_query_heads: Whether every layer that has attention must keep all query heads.
        runs_half_precision: Whether the target multiplies matrices in half precision with the widths as they are.
        derives_head_dim: Values of `model_type` whose own class in the target computes the head size as hidden size /
            heads, so it loads no stock checkpoint that lost heads.
    """

    name: str
    basis: Literal["run", "read", "rule"]
    model_types: tuple[str, ...] = ()
    multiple_of: int = 1
    attention_stub: Literal["none", "first", "every"] = "none"
    mlp_stub: int = 0
    drops_empty_layers: bool = False
    quantised: bool = False
    supports_block_norms: bool = True
    keeps_output_bias: bool = False
    supports_sliding_window: bool = True
    uniform_layers: bool = False
    all_query_heads: bool = False
    runs_half_precision: bool = False
    stock_types: tuple[str, ...] | None = None
    derives_head_dim: tuple[str, ...] = ()


def _gguf(name: str, multiple_of: int) -> Target:
    return Target(
        name, "run", GGUF_TYPES, multiple_of, attention_stub="first", mlp_stub=max(32, multiple_of),
        drops_empty_layers=True, quantised=multiple_of > 1, supports_block_norms=False, supports_sliding_window=False,
        stock_types=GGUF_STOCK_TYPES,
    )  # fmt: skip


TARGETS = (
    Target("transformers", "run", FOLDER_TYPES, keeps_output_bias=True, runs_half_precision=True, stock_types=()),
    Target("vllm", "read", VLLM_TYPES, attention_stub="every", mlp_stub=32, runs_half_precision=True,
           stock_types=VLLM_TYPES, derives_head_dim=("qwen2",)),
    _gguf("gguf_f16", 1),
    _gguf("gguf_q8_0", 32),
    _gguf("gguf_k", 256),
    Target("decilm", "read", ("llama",), attention_stub="first", supports_block_norms=False,
           supports_sliding_window=False, all_query_heads=True),
    Target("tensorrt", "rule", uniform_layers=True),
)  # fmt: skip


MULTIPLES = (8, 32, 64, 256)
RECOMMENDED_MULTIPLE = 8  # rows of 16 bytes in half precision: other widths are slow on GPUs (docs/benchmarks.md)
MAX_PADDING_SHARE = 0.05  # if padding adds back a larger share of the removed parameters, `width_recommendation` warns


@dataclass(frozen=True)
class ModelProperties:
    """Properties of the unpruned model that verdicts depend on.

    Attributes:
        model_type: `model_type` in the transformers config.
        context_length: Maximum context length (tokens); None if the config does not give it.
        sliding_window: Size of the sliding attention window (tokens); None if the model does not use one.
        head_dim: Size of an attention head.
        queries_per_group: Query heads per key/value head.
        biases: Projections with a bias, such as `self_attn.o_proj`.
        block_norms: Norms inside blocks, such as `self_attn.q_norm`.
        kv_group_counts: Numbers of KV groups that the stock config accepts; None if all.
    """

    model_type: str
    context_length: int | None
    sliding_window: int | None
    head_dim: int
    queries_per_group: int
    biases: tuple[str, ...]
    block_norms: tuple[str, ...]
    kv_group_counts: tuple[int, ...] | None = None

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> ModelProperties | None:
        """Read the properties from a manifest; return None if an older version wrote it and they are missing."""
        config = manifest["config"]
        if "biases" not in manifest or "num_attention_heads" not in config:
            return None
        heads = int(config["num_attention_heads"])
        layer_types = tuple(config.get("layer_types") or ())
        has_sliding_layers = not layer_types or "sliding_attention" in layer_types
        slides = has_sliding_layers and config.get("use_sliding_window") is not False
        return cls(
            model_type=manifest["model_type"],
            context_length=config.get("max_position_embeddings"),
            sliding_window=config.get("sliding_window") if slides else None,
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            queries_per_group=heads // int(config.get("num_key_value_heads") or heads),
            biases=tuple(manifest["biases"]),
            block_norms=tuple(manifest["block_norms"]),
            kv_group_counts=_stock_counts(manifest),
        )


@dataclass(frozen=True)
class KeptCounts:
    """Numbers of KV groups and MLP channels that each layer keeps, (n_layers,) each, and the layers removed whole.

    `experts` are the numbers of kept experts, None in a dense layer; empty for a dense model.
    """

    kv_groups: tuple[int, ...]
    mlp_channels: tuple[int, ...]
    removed: tuple[int, ...] = ()
    experts: tuple[int | None, ...] = ()

    @property
    def kept_experts(self) -> tuple[int | None, ...]:
        """Numbers of kept experts, (n_layers,); None in a dense layer."""
        return self.experts or (None,) * len(self.kv_groups)

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers that are not removed whole."""
        return [layer for layer in range(len(self.kv_groups)) if layer not in self.removed]

    def n_params(self, structure: ModelSizes) -> int:
        """Return the number of parameters of the pruned model."""
        return structure.other_params + sum(
            sum(
                structure.layers[index].kept_params(
                    self.kv_groups[index], self.mlp_channels[index], self.kept_experts[index]
                )
            )
            for index in self.layers
        )

    def stock_obstacles(self, properties: ModelProperties) -> list[Obstacle]:
        """Return what keeps the plan from having a stock shape; empty if it has one."""
        counts = zip(self.kv_groups, self.mlp_channels, self.kept_experts, strict=True)
        kept = [KeptLayer(kv, mlp, index in self.removed, experts) for index, (kv, mlp, experts) in enumerate(counts)]
        return obstacles(kept, properties.kv_group_counts)


@dataclass(frozen=True)
class Verdict:
    """Result for one target and one pruning plan.

    Attributes:
        target: The target.
        rounded: Layers whose MLP widths must be rounded up.
        attention_stubs: Layers that need an attention stub.
        mlp_stubs: Layers that need an MLP stub.
        left_out: Layers that the export leaves out.
        reasons: Reasons why the target cannot load the model; empty if it can.
        remarks: Further messages.
    """

    target: Target
    rounded: list[int] = field(default_factory=list)
    attention_stubs: list[int] = field(default_factory=list)
    mlp_stubs: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    reasons: list[Message] = field(default_factory=list)
    remarks: list[Message] = field(default_factory=list)

    @property
    def code(self) -> str:
        """Verdict code: `as_is`, `needs_rounding`, `needs_stub`, `needs_rounding_and_stub` or `cannot`."""
        if self.reasons:
            return "cannot"
        needs = [name for name, layers in (("rounding", self.rounded), ("stub", self._stubs)) if layers]
        return f"needs_{'_and_'.join(needs)}" if needs else "as_is"

    @property
    def messages(self) -> list[Message]:
        """All messages: the reasons, or else the changes that loading needs; then the remarks."""
        if self.reasons:
            return [*self.reasons, *self.remarks]
        changes: list[Message] = []
        if self.rounded:
            multiple, layers = self.target.multiple_of, layers_message(self.rounded)
            changes.append(Message("round_widths", {"multiple": multiple, "n": len(self.rounded), "layers": layers}))
        if self.attention_stubs:
            changes.append(Message("attention_stubs", {"layers": layers_message(self.attention_stubs)}))
        if self.mlp_stubs:
            channels = max(1, self.target.mlp_stub)
            changes.append(Message("mlp_stubs", {"channels": channels, "layers": layers_message(self.mlp_stubs)}))
        if self.left_out:
            changes.append(Message("left_out", {"layers": layers_message(self.left_out)}))
        return [*changes, *self.remarks]

    @property
    def _stubs(self) -> bool:
        return bool(self.attention_stubs or self.mlp_stubs)


def all_verdicts(kept: KeptCounts, structure: ModelSizes, properties: ModelProperties) -> list[Verdict]:
    """Return the verdict of every target on a plan, in the order of `TARGETS`."""
    return [verdict_for(target, kept, structure, properties) for target in TARGETS]


def verdict_for(target: Target, kept: KeptCounts, structure: ModelSizes, properties: ModelProperties) -> Verdict:
    """Return the verdict of one target on a plan.

    Args:
        target: The target.
        kept: Numbers of groups that the plan keeps.
        structure: Sizes of the unpruned model.
        properties: Properties of the unpruned model.
    """
    reasons, remarks = list(_refusals(target, kept, structure, properties)), []
    if target.uniform_layers and (difference := _shape_difference(kept)):
        reasons.append(difference)
        remarks.append(_uniform_padding(kept, structure))
    if reasons:
        return Verdict(target, reasons=reasons, remarks=remarks)
    left_out = _left_out(target, kept, properties)
    layers = [layer for layer in kept.layers if layer not in left_out]
    if not layers:
        return Verdict(target, reasons=[Message("no_layer_left")])
    slow = [layer for layer in layers if kept.mlp_channels[layer] % RECOMMENDED_MULTIPLE]
    if target.runs_half_precision and slow:
        remarks.append(
            Message("ragged_widths", {"multiple": RECOMMENDED_MULTIPLE, "layers": number_of_layers(len(slow))})
        )
    has_fewer_heads = any(kept.kv_groups[layer] < structure.layers[layer].n_kv_groups for layer in layers)
    is_derived = properties.model_type in target.derives_head_dim
    if is_derived and has_fewer_heads and _is_stock_for(target, kept, properties):
        remarks.append(Message("derives_head_dim", {"model_type": properties.model_type}))
    if wide := _wide_o_proj(target, kept, properties):
        remarks.append(Message("wide_o_proj", {"layers": layers_message(wide), "multiple": target.multiple_of}))
    return Verdict(
        target,
        rounded=[layer for layer in layers if kept.mlp_channels[layer] % target.multiple_of],
        attention_stubs=_attention_stubs(target, kept, properties, layers),
        mlp_stubs=_mlp_stubs(target, kept, properties, layers),
        left_out=left_out,
        remarks=remarks,
    )


@dataclass(frozen=True)
class RoundingCost:
    """Cost of padding MLP widths with zeros to multiples of a number.

    Attributes:
        multiple: The number.
        n_layers: Number of padded layers.
        added_params: Parameters that padding adds.
        removed_param_fraction: Achieved fraction of removed parameters after padding.
    """

    multiple: int
    n_layers: int
    added_params: int
    removed_param_fraction: float


def rounding_costs(kept: KeptCounts, structure: ModelSizes) -> list[RoundingCost]:
    """Compute the cost of padding MLP widths with zeros, for each of `MULTIPLES`."""
    costs = []
    for multiple in MULTIPLES:
        added = [
            layer.kept_params(0, -n_channels % multiple, n_experts)[1]
            for n_channels, n_experts, layer in zip(kept.mlp_channels, kept.kept_experts, structure.layers, strict=True)
        ]
        removed = structure.total_params - kept.n_params(structure) - sum(added)
        costs.append(RoundingCost(multiple, sum(map(bool, added)), sum(added), removed / structure.total_params))
    return costs


def width_recommendation(kept: KeptCounts, structure: ModelSizes) -> Message:
    """Return the recommendation about MLP widths as a message."""
    aligned = [multiple for multiple in MULTIPLES if not any(kept.mlp_channels[i] % multiple for i in kept.layers)]
    if aligned and aligned[-1] >= RECOMMENDED_MULTIPLE:
        return Message("advice_aligned", {"multiple": aligned[-1]})
    cost = next(cost for cost in rounding_costs(kept, structure) if cost.multiple == RECOMMENDED_MULTIPLE)
    removed = structure.total_params - kept.n_params(structure)
    if cost.added_params > MAX_PADDING_SHARE * removed:
        widest = max(layer.n_mlp_channels for layer in structure.layers)
        share = cost.added_params / removed if removed else 1.0
        return Message("advice_coarse", {"channels": widest, "share": share})
    values: dict[str, Value] = {
        "added": cost.added_params,
        "layers": number_of_layers(cost.n_layers),
        "fraction": cost.removed_param_fraction,
    }
    return Message("advice_plan", values)


def layers_message(layers: Sequence[int]) -> Message:
    """Return the numbers of some layers in words, such as `layers 0, 3-5`."""
    return layers_in_words(format_layer_ranges(layers))


def layers_in_words(numbers: str) -> Message:
    """Return numbers of layers, formatted by `format_layer_ranges`, in words."""
    return Message("layers.one" if numbers.isdigit() else "layers.several", {"layers": numbers})


def number_of_layers(n: int) -> Message:
    """Return how many layers, in words."""
    return Message("layers.one_of" if n == 1 else "layers.n_of", {"n": n})


def _refusals(
    target: Target, kept: KeptCounts, structure: ModelSizes, properties: ModelProperties
) -> Iterable[Message]:
    is_stock = _is_stock_for(target, kept, properties)
    types = (target.stock_types or ()) if is_stock else target.model_types
    if types and properties.model_type not in types:
        yield Message("other_type", {"model_type": properties.model_type, "known": ", ".join(types)})
    if properties.block_norms and not target.supports_block_norms and not is_stock:
        yield Message("has_block_norms", {"names": ", ".join(properties.block_norms)})
    window, context = properties.sliding_window, properties.context_length
    if not target.supports_sliding_window and window is not None and context is not None and window < context:
        yield Message("sliding_window", {"window": window, "context": context})
    if target.all_query_heads:
        full = [layer.n_kv_groups for layer in structure.layers]
        if dropped := [layer for layer, count in enumerate(kept.kv_groups) if 0 < count < full[layer]]:
            yield Message("query_heads_dropped", {"layers": layers_message(dropped)})


def _shape_difference(kept: KeptCounts) -> Message | None:
    n_kv = len({kept.kv_groups[layer] for layer in kept.layers})
    widths = [set(widths) for widths in _mlp_widths(kept)]
    if n_kv <= 1 and all(len(of_kind) <= 1 for of_kind in widths):
        return None
    return Message("shapes_differ", {"n_kv": n_kv, "n_mlp": sum(map(len, widths))})


def _uniform_padding(kept: KeptCounts, structure: ModelSizes) -> Message:
    kv_groups = max(kept.kv_groups)
    dense, of_experts = (max(widths, default=0) for widths in _mlp_widths(kept))
    channels = tuple(dense if n_experts is None else of_experts for n_experts in kept.kept_experts)
    padded = KeptCounts((kv_groups,) * structure.n_layers, channels, kept.removed, kept.experts)
    fraction = 1 - padded.n_params(structure) / structure.total_params
    if dense and of_experts:
        values: dict[str, Value] = {"kv_groups": kv_groups, "channels": dense, "expert_channels": of_experts}
        return Message("uniform_padding_mixed", values | {"fraction": fraction})
    widest = max(dense, of_experts)
    return Message("uniform_padding", {"kv_groups": kv_groups, "channels": widest, "fraction": fraction})


def _mlp_widths(kept: KeptCounts) -> tuple[list[int], list[int]]:
    """Return the MLP widths of the dense layers that are left, and the widths of the experts in the other layers."""
    widths: tuple[list[int], list[int]] = ([], [])
    for layer in kept.layers:
        widths[kept.kept_experts[layer] is not None].append(kept.mlp_channels[layer])
    return widths


def _left_out(target: Target, kept: KeptCounts, properties: ModelProperties) -> list[int]:
    """Return the layers that the export leaves out: layers that lost both blocks, unless output biases remain."""
    if not target.drops_empty_layers or {ATTENTION.writer_path, MLP.writer_path} & set(properties.biases):
        return []
    return [layer for layer in kept.layers if not kept.kv_groups[layer] and not kept.mlp_channels[layer]]


def _attention_stubs(target: Target, kept: KeptCounts, properties: ModelProperties, layers: Sequence[int]) -> list[int]:
    """Return which of `layers` (those not left out) need an attention stub."""
    empty = [layer for layer in layers if not kept.kv_groups[layer]]
    if target.attention_stub == "every" or _needs_block_for_bias(target, ATTENTION.writer_path, properties):
        return empty
    return [layer for layer in empty if target.attention_stub == "first" and layer == layers[0]]


def _mlp_stubs(target: Target, kept: KeptCounts, properties: ModelProperties, layers: Sequence[int]) -> list[int]:
    """Return which of `layers` (those not left out) need an MLP stub."""
    if not (target.mlp_stub or _needs_block_for_bias(target, MLP.writer_path, properties)):
        return []
    return [layer for layer in layers if not kept.mlp_channels[layer]]


def _needs_block_for_bias(target: Target, projection: str, properties: ModelProperties) -> bool:
    """Return whether a projection has a bias that the target cannot load without its block."""
    return projection in properties.biases and not target.keeps_output_bias


def _is_stock_for(target: Target, kept: KeptCounts, properties: ModelProperties) -> bool:
    """Return whether the target gets a stock checkpoint."""
    return target.stock_types is not None and not kept.stock_obstacles(properties)


def _stock_counts(manifest: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the numbers of KV groups that the stock config accepts; None if the manifest does not say its sizes."""
    layers, config = manifest.get("structure", {}).get("layers"), manifest["config"]
    if not layers or "hidden_size" not in config:
        return None
    return stock_kv_group_counts(layers[0]["n_kv_groups"], config | {"model_type": manifest["model_type"]})


def _wide_o_proj(target: Target, kept: KeptCounts, properties: ModelProperties) -> list[int]:
    if not target.quantised:
        return []
    inputs = properties.queries_per_group * properties.head_dim
    return [layer for layer, count in enumerate(kept.kv_groups) if count * inputs % target.multiple_of]
