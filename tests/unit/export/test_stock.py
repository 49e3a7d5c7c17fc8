"""Stock checkpoints: plans of one shape load without any code of ours, and compute what was evaluated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from espalier.config import load_study
from espalier.errors import UserError
from espalier.export.build import find_stock_shape, stock_model
from espalier.export.make import export_checkpoint
from espalier.files import read_json
from espalier.models.loading import load_model
from espalier.models.surgery import prune
from espalier.planning.plan import Plan
from espalier.planning.stock import KeptLayer, StockShape, obstacles, stock_kv_group_counts, stock_shape
from espalier.study.lookups import Study
from tests.conftest import REPOSITORY
from tests.unit.conftest import random_model, with_biases
from tests.unit.export.conftest import N_LAYERS, WIDE, Source
from tests.unit.models.test_surgery import logits

Make = Callable[..., Source]
BOTH = (0, 1)
DEPTH = ((), BOTH, (), BOTH), ((), WIDE, (), WIDE), (0, 2)
SAME = ((0,), (1,), (1,), (0,)), (WIDE[::2], WIDE[1::2], WIDE[24:], WIDE[:24]), ()
HYBRID = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}


def export(source: Source, checkpoint: Path, **options: Any) -> dict[str, Any]:
    settings = {"dtype": "stored", "stubs": False} | options
    export_checkpoint(source.manifest, source.description, checkpoint=checkpoint, **settings)
    return read_json(checkpoint / "config.json")


CASES = {
    "llama": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 6}),
    "mistral": ("mistral", {"sliding_window": 5, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, **HYBRID}),
    "qwen3": ("qwen3", {"head_dim": 12, "dtype": torch.bfloat16}),
}


@pytest.mark.parametrize(
    ("case", "kept"), [("llama", SAME), ("mistral", DEPTH), ("qwen2", DEPTH), ("qwen3", SAME)], ids=CASES
)
def test_a_fresh_process_without_our_code_finds_the_evaluated_model(
    make_source: Make, tmp_path: Path, case: str, kept: Any
) -> None:
    architecture, changes = CASES[case]
    source = make_source(architecture, kept=kept, **changes)
    # Asking for stubs changes nothing: no block is empty, so vLLM gets the same folder.
    config = export(source, tmp_path / "best", stubs=architecture == "mistral")
    parity = read_json(tmp_path / "best/parity.json")
    assert parity["passed"]
    assert parity["logits"]["max_abs_difference"] == 0.0
    assert set(parity["generation"].values()) & {"tie", "different"} == set()
    assert not list((tmp_path / "best").glob("*.py"))
    base = read_json(source.folder / "config.json")
    assert config["model_type"] == architecture
    assert config["architectures"] == base["architectures"]
    assert not {"auto_map", "per_layer_config"} & set(config)
    sizes = {key: config[key] for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size")}
    whole = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    half = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}
    assert sizes == (whole if kept is DEPTH else half)
    assert config["num_hidden_layers"] == (2 if kept is DEPTH else N_LAYERS)
    if kept is SAME:
        assert config["head_dim"] == changes.get("head_dim", 8)
    if architecture == "qwen2":
        n = 1 if kept is DEPTH else 2
        assert config["layer_types"] == ["full_attention"] * n + ["sliding_attention"] * n
        assert config["max_window_layers"] == n
    if architecture == "mistral":
        _check_card((tmp_path / "best/README.md").read_text(encoding="utf-8"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "best", trust_remote_code=False)
    assert type(loaded) is getattr(transformers, config["architectures"][0])
    assert AutoTokenizer.from_pretrained(tmp_path / "best")("x").input_ids
    pruned = load_model(source.folder, dtype="auto", device=torch.device("cpu"))
    prune(pruned, *kept)
    assert loaded.num_parameters() == pruned.num_parameters()
    prompts = torch.arange(5, 60)[None]
    assert torch.equal(logits(loaded, prompts), logits(pruned, prompts))


@pytest.mark.parametrize("kept", [DEPTH, SAME], ids=["layers", "one shape"])
@pytest.mark.parametrize("case", CASES)
def test_stock_classes_load_every_shape(tmp_path: Path, case: str, kept: Any) -> None:
    architecture, changes = CASES[case]
    model = with_biases(random_model(architecture, 400, num_hidden_layers=N_LAYERS, **changes))
    prune(model, *kept)
    shape = stock_shape(Plan((2,) * N_LAYERS, (48,) * N_LAYERS, *kept).kept)
    assert shape == (StockShape(2, 2, 48) if kept is DEPTH else StockShape(N_LAYERS, 1, 24))
    stock_model(model, shape).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.num_parameters() == model.num_parameters()
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is changes.get("tie_word_embeddings", False)
    prompts = torch.arange(5, 60)[None]
    torch.testing.assert_close(logits(loaded, prompts), logits(model, prompts), atol=0, rtol=0)


def _check_card(card: str) -> None:
    assert "2 of 4 whole layers were removed, and all remaining layers have the same size." in card
    assert "AutoModelForCausalLM.from_pretrained(folder)\n" in card
    assert "trust_remote_code" not in card
    assert "Removed whole: layers 0, 2." in card
    assert "Without attention" not in card
    assert "| 2 | 0 of 2 | 0 | 0 of 48 | 0 of " in card


def test_a_plan_without_a_stock_shape_is_refused_with_what_is_in_the_way(make_source: Make, tmp_path: Path) -> None:
    source = make_source("llama")
    source.description["stock"] = True
    message = (
        r"export\.stock: the plan of model 'A' has no stock shape: layers 0, 3 have no attention, and layers 1, 3 have "
        r"no MLP, and 3 different numbers of KV groups \(0 in layers 0, 3; 2 in layer 2; 1 in layer 1\), and 3 "
        r"different numbers of MLP channels \(0 in layers 1, 3; 24 in layer 0; 3 in layer 2\)\. Export it without"
    )
    with pytest.raises(UserError, match=message):
        export(source, tmp_path / "out/best")
    assert not (tmp_path / "out").exists()


def test_heads_that_the_stock_config_refuses() -> None:
    """Llama's config needs a hidden size (32) that is a multiple of the number of heads; Mistral's does not."""
    plan = Plan((4,) * 2, (48,) * 2, ((0, 1, 2),) * 2, (WIDE[:24],) * 2)
    manifest = {
        "model": "A", "model_type": "llama", "trust_remote_code": False,
        "config": {"hidden_size": 32, "num_attention_heads": 4},
    }  # fmt: skip
    assert find_stock_shape(plan, manifest, required=False) is None
    with pytest.raises(UserError, match="its stock class does not accept 3 KV groups with this hidden size"):
        find_stock_shape(plan, manifest, required=True)
    mistral = manifest | {"model_type": "mistral"}
    assert find_stock_shape(plan, mistral, required=True) == StockShape(2, 3, 24)
    with pytest.raises(UserError, match="no stock shape: its base model needs code of its own folder"):
        find_stock_shape(plan, mistral | {"trust_remote_code": True}, required=True)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_numbers_of_heads_are_accepted_as_the_table_says(architecture: str) -> None:
    for n_kv in range(1, 5):
        config = {"hidden_size": 32, "num_attention_heads": 4, "model_type": architecture}
        accepts = n_kv in stock_kv_group_counts(4, config)
        try:
            random_model(architecture, 50, num_attention_heads=n_kv, num_key_value_heads=n_kv, head_dim=8)
        except StrictDataclassClassValidationError:
            assert not accepts
        else:
            assert accepts


def test_stock_shapes_by_hand() -> None:
    whole, gone = KeptLayer(2, 48, False), KeptLayer(0, 0, True)
    assert stock_shape([whole, gone, whole]) == StockShape(2, 2, 48)
    assert stock_shape([whole, KeptLayer(0, 0, False)]) is None  # empty blocks, whose norms stay
    assert stock_shape([whole, whole], kv_group_counts=[1, 4]) is None
    found = obstacles([whole, KeptLayer(2, 40, False), gone, KeptLayer(2, 40, False), KeptLayer(2, 8, False)])
    assert [(one.kind, one.sizes) for one in found] == [("mlp_channels", {40: "1, 3", 48: "0", 8: "4"})]
    many = obstacles([KeptLayer(2, 10 + n, False) for n in range(5)])
    assert str(many[0]).endswith("(14 in layer 4; 13 in layer 3; 12 in layer 2; 2 more)")


def test_a_study_is_refused_whose_named_exports_cannot_be_stock() -> None:
    model = {"name": "A", "family": "Llama", "kind": "base", "path": "a"}
    methods = [{"name": "m", "criterion": "magnitude"}, {"name": "d", "criterion": "magnitude", "units": ["layer"]}]
    config = {"study": "s", "models": [model], "methods": methods, "grid": {"methods": ["m", "d"]}}
    names = {"experiments": ["d-p20", "m-p20"]}
    study = Study(load_study(config | {"export": names}), REPOSITORY / "src/espalier")
    assert list(study.exports.problems()) == []
    assert "stock" not in study.exports.settings(_Wildcards())
    study = Study(load_study(config | {"export": names | {"stock": True}}), REPOSITORY / "src/espalier")
    (line,) = study.exports.problems()
    assert line.startswith("export.experiments[1]: 'm-p20' gives layers different shapes, which export.stock refuses")
    assert study.exports.settings(_Wildcards())["stock"] is True


class _Wildcards:
    model = "A"
