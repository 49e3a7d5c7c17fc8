"""Verdicts on hand-made plans, checked against the facts about each target in docs/serving.md."""

from dataclasses import replace

import pytest

from espalier.messages.catalogue import Message, Value
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.serving.verdict import (
    TARGETS,
    KeptCounts,
    ModelProperties,
    Verdict,
    all_verdicts,
    format_layer_ranges,
    rounding_costs,
    verdict_for,
    width_recommendation,
)

# 4 layers of 4 KV groups (3,072 parameters each) and 512 channels (192 each).
STRUCTURE = ModelSizes((LayerSizes(4, 3_072, 512, 192, 128),) * 4, other_params=100_000)
LLAMA = ModelProperties("llama", 4_096, None, head_dim=64, queries_per_group=2, biases=(), block_norms=())
WHOLE = KeptCounts((4,) * 4, (512,) * 4)
MIXED = KeptCounts((4,) * 4, (512, 512, 512, 256))


def verdict(name: str, kept: KeptCounts, properties: ModelProperties = LLAMA) -> Verdict:
    return verdict_for(next(target for target in TARGETS if target.name == name), kept, STRUCTURE, properties)


def codes(of: Verdict) -> list[str]:
    return [message.code for message in of.messages]


def test_a_whole_model_is_loaded_everywhere() -> None:
    assert {one.target.name: one.code for one in all_verdicts(WHOLE, STRUCTURE, LLAMA)} == dict.fromkeys(
        (target.name for target in TARGETS), "as_is"
    )


@pytest.mark.parametrize(
    ("name", "expected", "rounded"),
    [("gguf_f16", "as_is", []), ("gguf_q8_0", "needs_rounding", [2]), ("gguf_k", "needs_rounding", [1, 2]),
     ("transformers", "as_is", []), ("vllm", "as_is", [])],
)  # fmt: skip
def test_widths(name: str, expected: str, rounded: list[int]) -> None:
    found = verdict(name, KeptCounts((4,) * 4, (512, 96, 100, 256)))
    assert (found.code, found.rounded) == (expected, rounded)


def test_only_the_experts_that_are_kept_are_padded() -> None:
    """A channel of all 4 experts has 40 parameters, so 2 more channels of 2 kept experts have 2 * 20."""
    structure = ModelSizes((LayerSizes(1, 10, 6, 40, 5, 4, 3, 2),), other_params=100)
    cost = rounding_costs(KeptCounts((1,), (6,), experts=(2,)), structure)[0]
    assert (cost.multiple, cost.n_layers, cost.added_params) == (8, 1, 40)
    # Of 355 parameters, two experts are removed: 6 * 20 of their channels, and 2 * 3 of the router. 40 are added.
    assert cost.removed_param_fraction == pytest.approx((126 - 40) / 355)
    whole = rounding_costs(KeptCounts((1,), (6,), experts=(4,)), structure)[0]
    assert whole.added_params == 80


def test_attention_that_is_gone_in_the_middle() -> None:
    kept = KeptCounts((4, 0, 4, 0), (512,) * 4)
    assert verdict("transformers", kept).code == "as_is"
    assert verdict("gguf_f16", kept).code == "as_is"
    assert verdict("vllm", kept).attention_stubs == [1, 3]
    assert verdict("decilm", kept).code == "as_is"


def test_an_mlp_that_is_gone() -> None:
    kept = KeptCounts((4,) * 4, (512, 0, 512, 512))
    assert verdict("transformers", kept).code == "as_is"
    assert (verdict("vllm", kept).mlp_stubs, verdict("vllm", kept).attention_stubs) == ([1], [])


def test_attention_that_is_gone_in_the_first_layer() -> None:
    kept = KeptCounts((0, 0, 4, 4), (512,) * 4)
    assert verdict("transformers", kept).code == "as_is"
    assert verdict("gguf_f16", kept).attention_stubs == [0]
    assert verdict("vllm", kept).attention_stubs == [0, 1]


def test_layers_without_blocks_are_left_out_of_gguf_and_the_next_becomes_the_first() -> None:
    found = verdict("gguf_f16", KeptCounts((0, 0, 4, 0), (0, 512, 0, 0)))
    assert found.left_out == [0, 3]
    assert found.attention_stubs == [1]
    assert found.mlp_stubs == [2]
    assert found.code == "needs_stub"
    assert codes(found) == ["attention_stubs", "mlp_stubs", "left_out"]
    assert found.messages[1].values == {"channels": 32, "layers": Message("layers.one", {"layers": "2"})}
    # The stub for a k-quant has the width of a whole block.
    assert verdict("gguf_k", KeptCounts((4,) * 4, (512, 0, 512, 512))).messages[0].values["channels"] == 256


def test_rounding_and_stub_together() -> None:
    assert verdict("gguf_q8_0", KeptCounts((4,) * 4, (500, 0, 512, 512))).code == "needs_rounding_and_stub"


def test_output_biases_need_a_block_to_be_in() -> None:
    """In GGUF a layer whose output biases remain becomes a block of stubs instead of being left out."""
    properties = replace(LLAMA, biases=("mlp.down_proj", "self_attn.o_proj"))
    found = verdict("gguf_f16", KeptCounts((4, 0, 4, 4), (512, 0, 512, 0)), properties)
    assert (found.left_out, found.attention_stubs, found.mlp_stubs) == ([], [1], [1, 3])
    assert verdict("transformers", KeptCounts((4, 0, 4, 4), (512,) * 4), properties).code == "as_is"


@pytest.mark.parametrize(
    ("properties", "reasons"),
    [
        (replace(LLAMA, model_type="qwen3", block_norms=("self_attn.k_norm", "self_attn.q_norm")),
         ["other_type", "has_block_norms"]),
        (replace(LLAMA, model_type="mistral", sliding_window=4_095), ["sliding_window"]),
        (replace(LLAMA, model_type="mistral", sliding_window=4_096), []),
    ],
    ids=["norms", "short window", "window of the context"],
)  # fmt: skip
def test_what_gguf_refuses(properties: ModelProperties, reasons: list[str]) -> None:
    found = verdict("gguf_f16", MIXED, properties)
    assert [message.code for message in found.reasons] == reasons
    assert (found.code == "cannot") == bool(reasons)


def test_norms_over_queries_and_keys_stay_in_a_folder() -> None:
    """Models with norms of queries and keys can be exported as a folder; as GGUF only if layers do not differ."""
    qwen3 = replace(LLAMA, model_type="qwen3", block_norms=("self_attn.k_norm", "self_attn.q_norm"))
    names = ("transformers", "vllm", "gguf_k")
    assert [verdict(name, MIXED, qwen3).code for name in names] == ["as_is", "as_is", "cannot"]
    assert [verdict(name, WHOLE, qwen3).code for name in names] == ["as_is"] * 3
    assert verdict("transformers", MIXED, replace(LLAMA, model_type="arcee")).code == "cannot"


def test_layers_that_are_removed_whole() -> None:
    """They need neither stubs nor rounding, and the others have one shape, which stock code loads."""
    kept = KeptCounts((0, 4, 0, 4), (0, 512, 0, 512), removed=(0, 2))
    assert {one.target.name: one.code for one in all_verdicts(kept, STRUCTURE, LLAMA)} == dict.fromkeys(
        (target.name for target in TARGETS), "as_is"
    )
    assert [one.left_out + one.attention_stubs for one in all_verdicts(kept, STRUCTURE, LLAMA)] == [[]] * len(TARGETS)
    assert kept.n_params(STRUCTURE) == STRUCTURE.total_params - 2 * STRUCTURE.layers[0].params
    assert kept.stock_obstacles(LLAMA) == []
    # The same counts without `removed` are empty blocks, whose norms stay.
    emptied = KeptCounts(kept.kv_groups, kept.mlp_channels)
    assert [obstacle.kind for obstacle in emptied.stock_obstacles(LLAMA)] == [
        "no_attention", "no_mlp", "kv_groups", "mlp_channels",
    ]  # fmt: skip
    assert width_recommendation(kept, STRUCTURE).values == {"multiple": 256}


def test_stock_checkpoints_load_where_other_shapes_do_not() -> None:
    same = KeptCounts((2,) * 4, (256,) * 4)
    gemma = replace(LLAMA, model_type="gemma")
    assert verdict("transformers", same, gemma).code == "as_is"
    assert verdict("vllm", same, gemma).code == "cannot"  # not read for this type
    qwen2 = replace(LLAMA, model_type="qwen2")
    assert codes(verdict("vllm", same, qwen2)) == ["derives_head_dim"]
    assert codes(verdict("vllm", WHOLE, qwen2)) == codes(verdict("vllm", same)) == []
    heads = replace(LLAMA, kv_group_counts=(1, 4))
    assert [obstacle.kind for obstacle in same.stock_obstacles(heads)] == ["heads"]


def test_query_heads_that_are_gone() -> None:
    found = verdict("decilm", KeptCounts((4, 2, 0, 3), (512,) * 4))
    assert found.code == "cannot"
    assert found.messages[0].values == {"layers": Message("layers.several", {"layers": "1, 3"})}


def test_one_shape_for_all_layers() -> None:
    assert verdict("tensorrt", KeptCounts((2,) * 4, (128,) * 4)).code == "as_is"
    found = verdict("tensorrt", KeptCounts((2, 2, 3, 2), (128, 256, 128, 128)))
    assert codes(found) == ["shapes_differ", "uniform_padding"]
    assert found.messages[0].values == {"n_kv": 2, "n_mlp": 2}
    # With padding, 4 * (4 - 3) * 3,072 + 4 * (512 - 256) * 192 parameters are still removed.
    assert found.messages[1].values["fraction"] == pytest.approx((4 * 3_072 + 4 * 256 * 192) / STRUCTURE.total_params)


def test_dense_layers_and_experts_are_padded_each_to_their_own_width() -> None:
    """One dense layer of 64 channels (12 parameters each), then two layers of 4 experts of 8 (48 for all, 3 kept).

    An expert has 1 row of the router (3 parameters). Norms are 5 in each layer, which 17 has with the router.
    A KV group has 10.
    """
    layers = (LayerSizes(2, 10, 64, 12, 5), *(LayerSizes(2, 10, 8, 48, 17, 4, 3, 2),) * 2)
    structure = ModelSizes(layers, other_params=100)
    target, properties = next(one for one in TARGETS if one.name == "tensorrt"), replace(LLAMA, model_type="qwen3_moe")
    same = KeptCounts((2, 2, 2), (60, 8, 8), experts=(None, 4, 4))
    assert verdict_for(target, same, structure, properties).code == "as_is"
    found = verdict_for(target, KeptCounts((2, 1, 2), (60, 8, 6), experts=(None, 3, 3)), structure, properties)
    assert found.messages[0].values == {"n_kv": 2, "n_mlp": 3}
    padded = 3 * 2 * 10 + 60 * 12 + 2 * (3 * 8 * 12 + 3 * 3) + 3 * 5 + 100
    total = 3 * 2 * 10 + 64 * 12 + 2 * (4 * 8 * 12 + 4 * 3) + 3 * 5 + 100
    widths = {"kv_groups": 2, "channels": 60, "expert_channels": 8, "fraction": pytest.approx(1 - padded / total)}
    assert (codes(found)[1], found.messages[1].values) == ("uniform_padding_mixed", widths)
    alone = verdict_for(target, KeptCounts((2,), (6,), experts=(3,)), ModelSizes(layers[1:2], 0), properties)
    assert alone.code == "as_is"


def test_inputs_of_o_proj_that_are_no_blocks() -> None:
    """With 2 query heads of size 64 per group, o_proj has 128, 256, 384 and 512 inputs: two are no multiple of 256."""
    found = verdict("gguf_k", KeptCounts((1, 2, 3, 4), (512,) * 4))
    assert codes(found) == ["wide_o_proj"]
    assert found.messages[0].values["layers"] == Message("layers.several", {"layers": "0, 2"})
    assert found.code == "as_is"


@pytest.mark.parametrize("target", ["transformers", "vllm", "gguf_f16"])
def test_ragged_widths_are_slow_on_gpus_where_they_are_kept(target: str) -> None:
    ragged = verdict(target, KeptCounts((4,) * 4, (512, 505, 8, 12)))
    slow = [message.values for message in ragged.messages if message.code == "ragged_widths"]
    assert slow == ([] if target == "gguf_f16" else [{"multiple": 8, "layers": Message("layers.n_of", {"n": 2})}])
    assert "ragged_widths" not in codes(verdict(target, KeptCounts((4,) * 4, (512, 504, 8, 16))))


def test_nothing_left() -> None:
    assert codes(verdict("gguf_f16", KeptCounts((0,) * 4, (0,) * 4))) == ["no_layer_left"]


def test_rounding_costs() -> None:
    kept = KeptCounts((4,) * 4, (512, 0, 33, 500))
    # Multiples of 8: 33 -> 40, 500 -> 504; of 32 and 64: 33 -> 64, 500 -> 512; of 256: 33 -> 256, 500 -> 512.
    added = {8: 7 + 4, 32: 31 + 12, 64: 31 + 12, 256: 223 + 12}
    removed = (512 + 479 + 12) * 192
    for cost in rounding_costs(kept, STRUCTURE):
        assert cost.n_layers == 2
        assert cost.added_params == added[cost.multiple] * 192
        left = (removed - cost.added_params) / STRUCTURE.total_params
        assert cost.removed_param_fraction == pytest.approx(left, rel=1e-12)


@pytest.mark.parametrize(
    ("widths", "code", "values"),
    [
        ((512, 256, 512, 0), "advice_aligned", {"multiple": 256}),
        ((512, 64, 512, 0), "advice_aligned", {"multiple": 64}),
        ((512, 60, 512, 0), "advice_plan", {"added": 4 * 192, "layers": Message("layers.one_of", {"n": 1})}),
        ((512, 65, 512, 512), "advice_plan", {"added": 7 * 192, "layers": Message("layers.one_of", {"n": 1})}),
        ((512, 505, 512, 512), "advice_coarse", {"channels": 512, "share": 7 / 7}),
    ],
)
def test_width_recommendation(widths: tuple[int, ...], code: str, values: dict[str, Value]) -> None:
    found = width_recommendation(KeptCounts((4,) * 4, widths), STRUCTURE)
    assert found.code == code
    for key, value in values.items():
        assert found.values[key] == (value if isinstance(value, Message) else pytest.approx(value))


def test_parameters_of_an_unpruned_model() -> None:
    assert WHOLE.n_params(STRUCTURE) == STRUCTURE.total_params


def test_layer_ranges() -> None:
    assert format_layer_ranges([7, 3, 4, 5, 0]) == "0, 3-5, 7"
    assert format_layer_ranges([]) == ""
