"""The model card: its content, and the escaping of inserted text."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from espalier.errors import UserError
from espalier.export.card import escape, write_card
from espalier.export.parity import LOGIT_TOLERANCE
from espalier.files import write_json
from espalier.models.sizes import LayerSizes, ModelSizes
from espalier.planning.plan import Plan
from tests.unit.export.conftest import description_of

PARITY = {
    "tolerance": LOGIT_TOLERANCE,
    "logits": {"n_tokens": 72, "max_abs_difference": 0.0, "max_abs_difference_cached": 2.5e-6},
    "generation": {"prompts": 3, "new_tokens": 12, "beams": 3, "greedy_cached": "equal", "beam_cached": "tie"},
    "tokenizer": {"n_texts": 5, "equal": True},
    "weights_dtype": "bfloat16",
}  # fmt: skip
STRUCTURE = ModelSizes((LayerSizes(2, 1000, 4, 30, 64),) * 2, 500)


@pytest.fixture
def parts() -> dict[str, Any]:
    plan = Plan((2, 2), (4, 4), ((1,), ()), ((0, 1, 2), ()))
    files = {"model.safetensors": {"bytes": 9, "sha256": "ab" * 32}}
    manifest = {
        "model": "A", "architecture": "LlamaForCausalLM", "commit": "c0ffee", "n_params": STRUCTURE.total_params,
        "structure": STRUCTURE.to_dict(), "files": files, "weight_files": ["model.safetensors"],
    }  # fmt: skip
    return {
        "description": description_of(manifest, plan, STRUCTURE), "manifest": manifest, "parity": PARITY,
        "licence": {"files": []}, "plan": plan, "stubs": False,
    }  # fmt: skip


def card(parts: dict[str, Any], folder: Path) -> str:
    write_json(folder / "config.json", {"num_attention_heads": 8, "num_key_value_heads": 2})
    write_card(**parts, is_stock=False, folder=folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_plan_and_numbers_are_said(parts: dict[str, Any], tmp_path: Path) -> None:
    text = card(parts, tmp_path)
    # Layer 0 keeps 1 of 2 groups of 1,000 parameters, 3 of 4 channels of 30, and norms with 64.
    assert "| 0 | 1 of 2 | 4 | 3 of 4 | 1,154 of 2,184 |" in text
    assert "| 1 | 0 of 2 | 0 | 0 of 4 | 64 of 2,184 |" in text
    assert "1 of 4 KV groups and 3 of 8 MLP channels are kept" in text
    assert "Without attention: layers 1." in text
    assert "Selection: freeze\\_first\\_layers 1." in text
    assert "| mean accuracy | 0.5000 | 0.7500 |" in text
    assert "| piqa acc (4 documents) | 0.5000 ± 0.2500 | 0.5000 ± 0.2500 |" in text
    assert "| perplexity plain (100 tokens) | 12.500 | 12.500 |" in text
    assert "ties within the tolerance: beam\\_cached" in text
    assert f"| model.safetensors | {'ab' * 32} |" in text
    assert "That of the base model: see the base model." in text
    assert "vLLM" not in text


def test_a_text_model_of_a_wrapper_says_that_images_are_not_read(parts: dict[str, Any], tmp_path: Path) -> None:
    assert "image" not in card(parts, tmp_path)
    wrapper = {"architecture": "Gemma3ForConditionalGeneration", "n_params_left_out": 12_345}
    parts["manifest"]["wrapper"] = wrapper
    text = card(parts, tmp_path)
    assert "The base model is the text model inside Gemma3ForConditionalGeneration. This folder reads text only" in text
    assert "other parts (12,345 parameters) are not included" in text


def test_a_local_calibration_text_has_no_split_and_words_are_apart(parts: dict[str, Any], tmp_path: Path) -> None:
    settings = parts["description"]["plan"]["recipe"]["settings"]
    settings |= {"seq_len": 16, "n_samples": 4, "seed": 3}
    for dataset, named in (("d/text.parquet", "d/text.parquet"), ("owner/texts", "owner/texts train")):
        parts["description"]["calibration"]["dataset"] = dataset
        text = card(parts, tmp_path)
        assert f"Calibrated on 4 sequences of 16 tokens of {named}, seed 3." in text
        assert "A fresh process loaded this folder with its own code, in float32." in text


def test_stubs_are_named_and_that_vllm_was_not_run(parts: dict[str, Any], tmp_path: Path) -> None:
    text = card(parts | {"stubs": True}, tmp_path)
    assert "(one KV group, or 32 channels)" in text
    assert "**vLLM itself was not run**" in text


def test_metadata_is_yaml_with_the_licence_of_the_base_model(parts: dict[str, Any], tmp_path: Path) -> None:
    parts["description"]["base"] |= {"hub": "owner/tiny", "revision": "main"}
    parts["licence"] = {"license": "other", "license_name": "x: [y", "files": ["LICENSE"]}
    text = card(parts, tmp_path)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == "owner/tiny"
    assert (head["license"], head["license_name"]) == ("other", "x: [y")
    assert "from owner/tiny, revision main, commit c0ffee" in text
    assert "which its folder calls: other, x: \\[y. Its texts are in this folder: LICENSE." in text


def test_what_is_inserted_is_escaped(parts: dict[str, Any], tmp_path: Path) -> None:
    name = "a|b\n# <script>`x`[l](u)**"
    parts["description"]["base"]["name"] = name
    text = card(parts, tmp_path)
    assert "| | this model | a\\|b \\# \\<script\\>\\`x\\`\\[l\\](u)\\*\\* |" in text
    assert "\n# <script>" not in text
    assert escape("1_000 | x") == "1\\_000 \\| x"


def test_other_protocols_are_not_set_side_by_side(parts: dict[str, Any], tmp_path: Path) -> None:
    parts["description"]["baseline"]["protocol"] = parts["description"]["results"]["protocol"] | {"limit": 5}
    with pytest.raises(ValueError, match="different protocols"):
        card(parts, tmp_path)


def with_results(parts: dict[str, Any], measured: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found = description_of(parts["manifest"], parts["plan"], STRUCTURE, measured=measured, **settings)
    return parts | {"description": found}


def test_the_mean_accuracy_is_the_one_that_the_reports_rank_by(parts: dict[str, Any], tmp_path: Path) -> None:
    """`metrics.json` has the mean by the default rule: acc_norm of the task. By acc, it is the mean of 0.25."""
    values = {"acc": {"value": 0.25, "stderr": None}, "acc_norm": {"value": 0.5, "stderr": None}}
    measured = {"tasks": {"piqa": {"metrics": values, "n_samples": 4}}}
    text = card(with_results(parts, measured), tmp_path)
    assert "| mean accuracy | 0.5000 | 0.7500 |" in text
    assert "Mean accuracy: unweighted, acc\\_norm\\_else\\_acc." in text
    by_acc = with_results(parts, measured, acc_mean_rule="acc")
    text = card(by_acc, tmp_path)
    assert "| mean accuracy | 0.2500 | 0.5000 |" in text  # the base model has acc 0.5 in its only task
    assert "Mean accuracy: unweighted, acc." in text
    assert "acc_mean_rule" not in by_acc["description"]


def test_results_on_a_part_of_the_documents_say_so(parts: dict[str, Any], tmp_path: Path) -> None:
    """A race stopped the experiment after 3 of the 4 documents of a task; of another, it answered all 2."""

    def tasks(n_piqa: int) -> dict[str, Any]:
        metrics = {"acc": {"value": 0.5, "stderr": None}}
        return {name: {"metrics": metrics, "n_samples": n} for name, n in (("piqa", n_piqa), ("boolq", 2))}

    race = {"rung": 1, "n_rungs": 2, "n_documents": 5, "stopped_by": "x", "keep": "best", "confidence": 0.99}
    stopped = with_results(parts, {"tasks": tasks(3), "perplexity": {}, "race": race})
    stopped["description"]["baseline"]["tasks"] = tasks(4)
    text = card(stopped, tmp_path)
    assert "A race stopped this model after 5 of these documents." in text
    assert "| mean accuracy | 0.5000 | - |" in text
    assert "| piqa acc (3 documents) | 0.5000 | - |" in text
    assert "| boolq acc (2 documents) | 0.5000 | 0.5000 |" in text
    survivor = with_results(parts, {"race": race | {"rung": 2, "stopped_by": None}})
    assert survivor["description"] == with_results(parts, {})["description"]  # its results are those without a race


def test_without_a_valid_experiment_there_is_no_best_one(
    load_script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    best = tmp_path / "consolidated/A/global_best_config.json"
    write_json(best, {"model": "A", "best": None})
    files: dict[str, Any] = {"plans": [], "metrics": [], "baseline": "", "manifest": "", "output": tmp_path / "x.json"}
    with pytest.raises(UserError, match=r"^export: model 'A' has no valid experiment, so none is the best; name one"):
        load_script("describe_export").main(best=[str(best)], settings={}, evaluation={}, **files)
