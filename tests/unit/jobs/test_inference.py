"""The job that measures inference with one plan: the plan that it reads and the results that it writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.files import write_json
from espalier.jobs.inference import chosen_plan, measure_plan
from espalier.models.manifest import make_manifest
from espalier.planning.plan import Plan
from tests.unit.conftest import random_model

SETTINGS = {"batch_sizes": [1, 2], "prompt_tokens": 8, "new_tokens": 3, "repeats": 6, "threads": 1}


def plan_of(kept_mlp_channels: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    plan = Plan((2, 2), (48, 48), ((1,), ()), kept_mlp_channels)
    return {
        "model": "A", "experiment": "x-p20", "pruning_ratio": 0.2, "removed_param_fraction": 0.19, **plan.to_dict(),
    }  # fmt: skip


def measured(folder: Path, tokenizer: PreTrainedTokenizerFast, plan: dict[str, Any]) -> dict[str, Any]:
    random_model("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    manifest = make_manifest("A", folder, trust_remote_code=False, commit=None)
    return measure_plan(manifest, plan, settings=SETTINGS, dtype="auto", device="cpu", gpus=0)


def test_content_of_the_result_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = measured(tmp_path, tokenizer, plan_of((tuple(range(30)), ())))
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    assert (found["experiment"], found["padded_to"]) == ("x-p20", 8)
    assert found["machine"]["device"] == "cpu"
    assert [batch["batch_size"] for batch in found["batches"]] == [1, 2]
    assert len(found["batches"][0]["gains"]) == 3 * 2
    assert len(found["runs"]) == 2 * 6 * 3
    sizes = found["models"]
    # 3 of 4 KV groups of 2 * (2 + 1) * 8 * 32, and 66 of 96 channels of 3 * 32; 2 channels come back as zeros.
    assert sizes["unpruned"]["n_params"] - sizes["pruned"]["n_params"] == 3 * 1_536 + 66 * 96
    assert sizes["padded"]["n_params"] - sizes["pruned"]["n_params"] == 2 * 96
    assert all(one["weights_bytes"] == 4 * one["n_params"] for one in sizes.values())
    assert sizes["pruned"]["kv_cache_bytes_per_token"] == sizes["unpruned"]["kv_cache_bytes_per_token"] / 4


def test_widths_that_need_no_padding(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = measured(tmp_path, tokenizer, plan_of(((), ())))
    assert found["padded_to"] is None
    assert set(found["models"]) == {"unpruned", "pruned"}
    assert {(one["of"], one["to"]) for one in found["batches"][0]["gains"]} == {("pruned", "unpruned")}


def test_a_named_plan_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", plan_of(((), ())))
    assert chosen_plan(tmp_path / "plan.json", tmp_path)["experiment"] == "x-p20"


def test_the_plan_of_the_best_experiment_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "best.json", {"model": "A", "best": {"experiment": "x-p20"}})
    write_json(tmp_path / "experiments/x-p20/plan.json", plan_of(((), ())))
    assert chosen_plan(tmp_path / "best.json", tmp_path / "experiments")["experiment"] == "x-p20"


def test_no_best_experiment_is_an_error(tmp_path: Path) -> None:
    write_json(tmp_path / "best.json", {"model": "A", "best": None})
    with pytest.raises(UserError, match=r"inference: model 'A' has no valid experiment, so none is the best; name one"):
        chosen_plan(tmp_path / "best.json", tmp_path)
