"""The table of architectures: which tensors belong to the units that pruning removes.

All other modules look up the names of projections and units here. Most families (Llama, Mistral, Qwen2, Qwen3 and the
like) use the same names. Some fuse the projections of a block that read the residual stream into one (Phi-3, GLM). This
file is copied to exported model folders, so it imports only the standard library.

A KV group is a key/value head with the query heads that share it. An MLP channel is a hidden unit of the MLP. In every
projection of a block, the groups are consecutive slices of equal size. In a projection that reads the residual stream,
they are slices of the rows and of the bias. In the projection that writes to the residual stream, they are slices of
the columns. The bias of the latter belongs to no group. A fused projection consists of parts, one below the other: the
queries, keys and values, or gate and up. In each part, the groups are consecutive slices of equal size. A layer is a
whole decoder layer with all of its tensors.

In a mixture of experts, the MLP of a layer is a router and experts. transformers holds all experts of a layer in two
tensors with one slice per expert. Most checkpoints store each expert in tensors of its own. An expert is its slices of
the two tensors and its row of the router.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class BlockNames(NamedTuple):
    """Names of the modules of one block of a decoder layer.

    Attributes:
        path: Name of the block within the layer.
        readers: Projections that read the residual stream. Their rows belong to groups.
        writer: The projection that writes to the residual stream. Its columns belong to groups, its bias to no group.
        counted: The reader whose rows count the groups, because each group has one head or one channel in it. Of a
            fused projection, the last part counts.
        fused: Parts of each fused reader, from the first rows to the last. They are named like separate projections.
        config_sizes: Keys of the model's config that the block reads in its forward pass. They count query heads.
    """

    path: str
    readers: tuple[str, ...]
    writer: str
    counted: str
    fused: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    config_sizes: tuple[str, ...] = ()

    def parts_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the parts of a projection; its own name if it is not fused."""
        return self.fused.get(name, (name,))

    def part_sizes(self, name: str, rows: int, width: int) -> tuple[int, ...]:
        """Return the number of rows of each part of a reader.

        The first part of a fused projection (queries or gate) has a row for each column of the writer. The other parts
        have equally many rows.

        Args:
            name: Name of the reader.
            rows: Rows of the reader.
            width: Columns of the writer.
        """
        n_others = len(self.parts_of(name)) - 1
        return (width, *[(rows - width) // n_others] * n_others) if n_others else (rows,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all projections, the writer last."""
        return (*self.readers, self.writer)

    @property
    def paths(self) -> tuple[str, ...]:
        """Names within the layer of all projections, such as `self_attn.q_proj`; the writer last."""
        return tuple(f"{self.path}.{name}" for name in self.names)

    @property
    def counted_path(self) -> str:
        """Name within the layer of the projection whose rows count the groups."""
        return f"{self.path}.{self.counted}"

    @property
    def writer_path(self) -> str:
        """Name within the layer of the projection that writes to the residual stream."""
        return f"{self.path}.{self.writer}"


ATTENTION = BlockNames("self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj", counted="k_proj")
MLP = BlockNames("mlp", ("gate_proj", "up_proj"), "down_proj", counted="up_proj")
FUSED_ATTENTION = BlockNames(
    "self_attn", ("qkv_proj",), "o_proj", counted="qkv_proj", fused={"qkv_proj": ATTENTION.readers},
    config_sizes=("num_attention_heads",),
)  # fmt: skip
FUSED_MLP = BlockNames(
    "mlp", ("gate_up_proj",), "down_proj", counted="gate_up_proj", fused={"gate_up_proj": MLP.readers}
)
BLOCKS = {"attention": ATTENTION, "mlp": MLP}
"""The usual layout of each block."""
LAYOUTS = {"attention": (ATTENTION, FUSED_ATTENTION), "mlp": (MLP, FUSED_MLP)}
"""All layouts of each block. The names of the projections tell which one a layer has."""
PROJECTION_NAMES = (*ATTENTION.names, *MLP.names)


class ExpertNames(NamedTuple):
    """Names of the tensors of a mixture of experts, in the layers of a model in memory.

    Attributes:
        path: Name of the module of all experts within the layer.
        reader: Name in that module of gate and up of all experts, (experts, 2 * channels, hidden).
        writer: Name in that module of down of all experts, (experts, hidden, channels).
        router: Name of the router within the layer. Its weight is (experts, hidden).
        whole: Modules of the MLP that run for every token and belong to no expert.
    """

    path: str = "mlp.experts"
    reader: str = "gate_up_proj"
    writer: str = "down_proj"
    router: str = "mlp.gate"
    whole: tuple[str, ...] = ("shared_expert", "shared_expert_gate")

    @property
    def reader_path(self) -> str:
        """Name within the layer of gate and up of all experts."""
        return f"{self.path}.{self.reader}"

    @property
    def writer_path(self) -> str:
        """Name within the layer of down of all experts."""
        return f"{self.path}.{self.writer}"

    @property
    def router_path(self) -> str:
        """Name within the layer of the weight of the router."""
        return f"{self.router}.weight"


EXPERTS = ExpertNames()
"""The layout of a mixture of experts."""


class StoredExperts(NamedTuple):
    """Names within the layer of the tensors of each expert in a checkpoint; `{}` is the number of the expert."""

    gate: str
    up: str
    down: str
    router: str


STORED_EXPERTS = (
    StoredExperts(
        gate="mlp.experts.{}.gate_proj.weight",
        up="mlp.experts.{}.up_proj.weight",
        down="mlp.experts.{}.down_proj.weight",
        router="mlp.gate.weight",
    ),
    StoredExperts(
        gate="block_sparse_moe.experts.{}.w1.weight",
        up="block_sparse_moe.experts.{}.w3.weight",
        down="block_sparse_moe.experts.{}.w2.weight",
        router="block_sparse_moe.gate.weight",
    ),
)
"""How checkpoints store experts: most families, and Mixtral."""
LAYERS, ROTARY, NORM, HEAD = "model.layers", "model.rotary_emb", "model.norm", "lm_head"
"""Names of modules of the whole model: decoder layers, rotary positions, final norm, output head."""
EMBEDDINGS, FINAL_NORM, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", f"{NORM}.weight", f"{HEAD}.weight"
"""Names of the weights outside the layers."""
ATTENTION_NORM, MLP_NORM = "input_layernorm", "post_attention_layernorm"
"""Names of the norms before the blocks of a layer."""
QUERY_NORM, KEY_NORM = f"{ATTENTION.path}.q_norm", f"{ATTENTION.path}.k_norm"
"""Names of the norms over each query and key, which Qwen3 has. All heads share their weights."""


def find_layout(block: str, names: Collection[str]) -> BlockNames | None:
    """Return the layout of a block of a layer that has modules of these names, such as `self_attn.q_proj`.

    Returns:
        The layout all of whose projections are among the names; None if there is none.
    """
    return next((layout for layout in LAYOUTS[block] if set(layout.paths) <= set(names)), None)


def parts_of(name: str) -> tuple[str, ...]:
    """Return the names of the parts of a projection of any layout; its own name if it is not fused."""
    layouts = (layout for group in LAYOUTS.values() for layout in group)
    return next((layout.fused[name] for layout in layouts if name in layout.fused), (name,))


class Unit(NamedTuple):
    """What pruning removes at once.

    Attributes:
        title: Name in messages.
        block: The block of a layer whose groups are the units, a key of `BLOCKS`; None if a unit is a whole layer or
            expert. It determines the tensor slices of a unit, and its cost, which is their number of parameters.
        config_sizes: Keys of the model's config that count the units.
        config_lists: Keys of the model's config that may hold a list with one entry per unit.
    """

    title: str
    block: str | None
    config_sizes: tuple[str, ...]
    config_lists: tuple[str, ...] = ()


_LISTS_OF_LAYERS = (
    "layer_types", "mlp_layer_types", "no_rope_layers", "layer_rope_theta", "intermediate_size",
    "num_attention_heads_per_layer",
)  # fmt: skip
KV_GROUP, MLP_CHANNEL, LAYER, EXPERT = "kv_group", "mlp_channel", "layer", "expert"
UNITS = {
    KV_GROUP: Unit("KV group", "attention", ("num_key_value_heads", "num_attention_heads")),
    MLP_CHANNEL: Unit("MLP channel", "mlp", ("intermediate_size",)),
    LAYER: Unit("layer", None, ("num_hidden_layers",), _LISTS_OF_LAYERS),
    EXPERT: Unit("expert", None, ("num_experts", "num_local_experts")),
}
"""The units that a method may remove, by their names in the config. A further unit is one more entry."""
GROUP_UNITS = tuple(name for name, unit in UNITS.items() if unit.block)
"""Units that are groups of a block. A method removes these by default."""
FIRST_SLIDING_LAYER = "max_window_layers"
"""Key of the model's config (Qwen2, Qwen3): number of first layers without sliding window."""
DENSE_LAYERS, EXPERT_STEP = "mlp_only_layers", "decoder_sparse_step"
"""Keys of the model's config (Qwen2-MoE, Qwen3-MoE): numbers of layers without experts, and the distance of layers with
experts."""
DIFFERING_LAYERS = "per_layer_config"
"""Key of the model's config (any model whose layers differ): other values of some keys, by number of the layer."""


class Unsupported(NamedTuple):
    """A construction of layers that cannot be divided into groups.

    Attributes:
        modules: Names of modules that show it.
        title: Name in messages.
        needed: What pruning it would need.
    """

    modules: frozenset[str]
    title: str
    needed: str


UNSUPPORTED = (
    Unsupported(
        frozenset({"kv_a_proj_with_mqa", "kv_b_proj", "q_a_proj", "q_b_proj"}),
        "latent attention",
        "pruning it would need groups of heads in projections of latents",
    ),
    Unsupported(
        frozenset({"experts", "block_sparse_moe"}),
        "experts in a layout that is not in the table of layouts",
        "pruning them would need an entry there that names the tensors and the row of the router of an expert",
    ),
    Unsupported(
        frozenset({"shared_expert", "shared_experts", "shared_mlp", "router"}),
        "a router or shared experts, but no routed experts",
        "pruning experts would need routed experts, each with its row of the router",
    ),
    Unsupported(
        frozenset({"mamba", "mixer", "linear_attn", "conv", "short_conv", "recurrent_block", "time_mix", "rwkv"}),
        "a state space, a convolution or linear attention",
        "pruning them would need units of their own, and scoring would need to keep packed sequences apart",
    ),
    Unsupported(
        frozenset({"query_key_value", "c_attn", "Wqkv", "W_pack", "wqkv", "att_proj"}),
        "a fused projection that is not in the table of layouts",
        "pruning it would need an entry there that says how its rows are divided",
    ),
    Unsupported(
        frozenset({"fc1", "fc2", "c_fc", "dense_h_to_4h"}),
        "an MLP without a gate",
        "pruning it would need a layout with one reader in the table of layouts",
    ),
    Unsupported(
        frozenset({"encoder"}),
        "an encoder",
        "only decoders are pruned; an encoder would need units and scores of its own",
    ),
)
"""Known constructions that are refused, the first that applies is named."""


def find_unsupported(names: Iterable[str]) -> Unsupported | None:
    """Return the first construction that the names of tensors show; None if they show none."""
    modules = {part for name in names for part in name.split(".")}
    return next((each for each in UNSUPPORTED if each.modules & modules), None)


class Heads(StrEnum):
    """Numbers of query heads that the stock classes of a family accept. Layers all have the same number."""

    ANY, DIVISORS, ALL = "any number", "divisors of the hidden size", "all heads of the base model"


class Family(NamedTuple):
    """A family of decoders that transformers implements and the contract test covers.

    Attributes:
        title: Name in documents.
        name: First part of the class names in transformers, such as `Llama` of `LlamaForCausalLM`.
        part: Second part of the names of the config and of the model without its head, such as `Text` of
            `Gemma3TextConfig`.
        heads: Which numbers of heads a stock checkpoint may have.
    """

    title: str
    name: str
    part: str = ""
    heads: Heads = Heads.ANY

    @property
    def config(self) -> str:
        """Name of the config class in transformers."""
        return f"{self.name}{self.part}Config"

    @property
    def model(self) -> str:
        """Name of the class without a head in transformers."""
        return f"{self.name}{self.part}Model"

    @property
    def causal(self) -> str:
        """Name of the class of the causal language model in transformers."""
        return f"{self.name}ForCausalLM"


class ExpertFamily(NamedTuple):
    """A family of decoders with experts that the contract test covers. Its layers keep one shape in an export.

    Attributes:
        title: Name in documents.
        name: First part of the class names in transformers, such as `Mixtral` of `MixtralForCausalLM`.
        width: Key of the model's config that counts the channels of an expert.
        heads: Which numbers of heads a stock checkpoint may have.
    """

    title: str
    name: str
    width: str
    heads: Heads = Heads.ANY

    @property
    def config(self) -> str:
        """Name of the config class in transformers."""
        return f"{self.name}Config"

    @property
    def causal(self) -> str:
        """Name of the class of the causal language model in transformers."""
        return f"{self.name}ForCausalLM"


FAMILIES = {
    "llama": Family("Llama", "Llama", heads=Heads.DIVISORS),
    "mistral": Family("Mistral", "Mistral"),
    "qwen2": Family("Qwen2", "Qwen2"),
    "qwen3": Family("Qwen3", "Qwen3"),
    "cohere": Family("Cohere", "Cohere"),
    "cohere2": Family("Cohere 2", "Cohere2"),
    "cwm": Family("CWM", "Cwm", heads=Heads.DIVISORS),
    "ernie4_5": Family("ERNIE 4.5", "Ernie4_5"),
    "exaone4": Family("EXAONE 4", "Exaone4"),
    "gemma": Family("Gemma", "Gemma"),
    "gemma2": Family("Gemma 2", "Gemma2", heads=Heads.DIVISORS),
    "gemma3_text": Family("Gemma 3 (text)", "Gemma3", part="Text", heads=Heads.DIVISORS),
    "glm": Family("GLM-4", "Glm"),
    "glm4": Family("GLM-4-0414", "Glm4"),
    "granite": Family("Granite", "Granite"),
    "helium": Family("Helium", "Helium", heads=Heads.ALL),
    "hunyuan_v1_dense": Family("HunYuan dense", "HunYuanDenseV1"),
    "ministral": Family("Ministral", "Ministral"),
    "ministral3": Family("Ministral 3", "Ministral3"),
    "olmo": Family("OLMo", "Olmo"),
    "phi3": Family("Phi-3", "Phi3", heads=Heads.ALL),
    "seed_oss": Family("Seed-OSS", "SeedOss"),
    "smollm3": Family("SmolLM3", "SmolLM3"),
    "stablelm": Family("StableLM", "StableLm", heads=Heads.ALL),
}
"""Families by `model_type`. Each passes the contract test (`tests/unit/models/test_families.py`) and can be exported.

A model of another type with the same projections is tried on a small copy (`espalier.jobs.check_architecture`). It can
be pruned in memory, and exported if all layers have one shape.
"""

EXPERT_FAMILIES = {
    "mixtral": ExpertFamily("Mixtral", "Mixtral", "intermediate_size"),
    "qwen2_moe": ExpertFamily("Qwen2-MoE", "Qwen2Moe", "moe_intermediate_size"),
    "qwen3_moe": ExpertFamily("Qwen3-MoE", "Qwen3Moe", "moe_intermediate_size"),
}
"""Families with experts by `model_type`. Each passes the test `tests/unit/models/test_expert_families.py`."""
