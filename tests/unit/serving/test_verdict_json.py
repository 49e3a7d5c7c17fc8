"""`ModelProperties` from the manifests of model folders, and verdicts from the layers table."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from espalier.models.manifest import make_manifest
from espalier.serving.verdict import ModelProperties
from espalier.serving.verdict_json import serving_verdicts, serving_verdicts_of_best
from tests.unit.conftest import random_model

QKV = ("self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj")
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {"biases": (), "sliding_window": None, "context_length": 128, "head_dim": 8, "queries_per_group": 2}),
    ("llama", {"attention_bias": True, "mlp_bias": True},
     {"biases": ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", *QKV[:1], "self_attn.o_proj", *QKV[1:])}),
    ("qwen2", {}, {"biases": QKV, "sliding_window": None}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
     {"sliding_window": 64}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}, {"sliding_window": None}),
    ("mistral", {"sliding_window": 64}, {"sliding_window": 64}),
    ("mistral", {"sliding_window": None}, {"sliding_window": None}),
    ("qwen3", {"head_dim": 16}, {"block_norms": ("self_attn.k_norm", "self_attn.q_norm"), "head_dim": 16}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "expected"), CASES)
def test_properties_of_a_model(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, name: str, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    random_model(name, len(tokenizer), **changes).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    properties = ModelProperties.from_manifest(make_manifest("A", tmp_path, trust_remote_code=False, commit=None))
    assert properties is not None
    assert properties.model_type == name
    assert {key: getattr(properties, key) for key in expected} == expected


def layers_table(**columns: list[int | None]) -> pd.DataFrame:
    return pd.DataFrame({"model": "A", "experiment": "x", "layer": [1, 0], **columns})


MANIFEST: dict[str, Any] = {
    "model_type": "llama", "biases": [], "block_norms": [],
    "config": {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "max_position_embeddings": 128},
    "structure": {
        "layers": [{"n_kv_groups": 2, "kv_group_params": 1536, "n_mlp_channels": 48, "mlp_channel_params": 96,
                    "fixed_params": 64}] * 2,
        "other_params": 1_000,
    },
}  # fmt: skip


def test_verdicts_from_the_layers_table() -> None:
    """Layers are sorted by number; the rows of the table are in another order."""
    table = layers_table(kept_kv_groups=[2, 0], kept_mlp_channels=[16, 48])
    found = serving_verdicts(table, "A", "x", MANIFEST)
    assert found["reason"] is None
    assert found["removed_param_fraction"] == pytest.approx((2 * 1536 + 32 * 96) / (4 * 1536 + 96 * 96 + 1_128))
    by_target = {one["target"]: one for one in found["targets"]}
    assert by_target["vllm"]["attention_stubs"] == [0]
    assert by_target["gguf_q8_0"]["rounded"] == [0, 1]
    assert by_target["gguf_q8_0"]["said"][0]["text"] == "MLP widths up to multiples of 32 (layers 0-1)"
    assert [one["multiple"] for one in found["rounding"]] == [8, 32, 64, 256]


def test_stock_shapes_from_the_layers_table() -> None:
    """Layer 0 is removed whole: it keeps no parameters. In the first table, its norms are left."""
    counts = {"kept_kv_groups": [2, 0], "kept_mlp_channels": [48, 0], "params_before": [7744, 7744]}
    found = serving_verdicts(layers_table(**counts, params_after=[7744, 64]), "A", "x", MANIFEST)
    assert found["stock"]["has_shape"] is False
    assert [message["text"] for message in found["stock"]["said"]] == [
        "no attention in layer 0", "no MLP in layer 0",
        "2 different numbers of KV groups (number: layers; 2: 1; 0: 0)",
        "2 different MLP widths (width: layers; 48: 1; 0: 0)",
    ]  # fmt: skip
    found = serving_verdicts(layers_table(**counts, params_after=[7744, 0]), "A", "x", MANIFEST)
    assert found["stock"] == {"has_shape": True, "said": []}
    assert found["removed_param_fraction"] == pytest.approx(7744 / (2 * 7744 + 1_000))


@pytest.mark.parametrize(
    ("manifest", "widths", "reason"),
    [
        (None, [16, 48], "the sizes of the unpruned model are not known"),
        ({**MANIFEST, "config": {}}, [16, 48], "the manifest is of an older version; run `snakemake` again"),
        (MANIFEST, [None, 48], "the layers table does not say what this experiment keeps"),
    ],
    ids=["imported", "older manifest", "unknown widths"],
)
def test_what_cannot_be_judged(manifest: dict[str, Any] | None, widths: list[int | None], reason: str) -> None:
    found = serving_verdicts(layers_table(kept_kv_groups=[2, 0], kept_mlp_channels=widths), "A", "x", manifest)
    assert (found["reason"], found["targets"], found["advice"]) == (reason, [], None)


def test_only_bests_are_in_the_analysis() -> None:
    analysis = {"model": "A", "by_ratio": {"20": {"best": {"experiment": "x"}}, "50": {"best": None}}}
    table = layers_table(kept_kv_groups=[2, 0], kept_mlp_channels=[16, 48])
    assert list(serving_verdicts_of_best(analysis, table, MANIFEST)) == ["x"]
