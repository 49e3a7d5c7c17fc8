"""A study of a mixture of experts: plans, evaluations, reports, and checkpoints that stock code loads."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from espalier.files import read_json, read_table
from espalier.models.sizes import ModelSizes
from tests.conftest import Run
from tests.unit.models.test_expert_families import expert_model
from tests.workflow.test_depth import load_in_fresh_process

EXPERIMENT = "reap-seq16-n3-p20"
METHODS = [
    {"name": "reap", "units": ["expert"], "criterion": "reap"},
    {"name": "experts", "units": ["expert"]},
    {"name": "drawn", "units": ["expert"], "criterion": "random"},
    {"name": "channels", "units": ["mlp_channel"], "criterion": "wanda", "allocation": "same_shape"},
    {"name": "free"},
    {"name": "shallow", "units": ["layer"], "criterion": "magnitude"},
]


@pytest.mark.long
def test_a_study_of_experts_from_plan_to_stock_checkpoint(
    snakemake: Run, tmp_path: Path, study: dict[str, Any]
) -> None:
    results = tmp_path / "results/tiny"
    model = expert_model("qwen3_moe", vocab_size=len(AutoTokenizer.from_pretrained(tmp_path / "model")))
    for file in (tmp_path / "model").glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(tmp_path / "model")
    study["models"][0]["family"] = "Qwen"
    study["methods"] = METHODS
    study["grid"]["methods"] = [method["name"] for method in METHODS]
    study["export"] = {"experiments": [EXPERIMENT, "channels-seq16-n3-p20"], "stock": True}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("reports", "structures", "export", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]

    manifest = read_json(results / "models/A.json")
    sizes = ModelSizes.from_dict(manifest["structure"])
    # gate, up and down of 24 channels and a row of the router, each of 32 numbers
    assert [layer.expert_params for layer in sizes.layers] == [3 * 24 * 32 + 32] * 2
    n_removed = int(0.2 * sizes.total_params) // (2 * 2336)
    assert n_removed == 2
    plan = read_json(results / f"experiments/A/{EXPERIMENT}/plan.json")
    assert [layer["experts"]["n_kept"] for layer in plan["layers"]] == [4, 4]
    assert plan["removed_params"] == 2 * n_removed * 2336
    metrics = read_json(results / f"experiments/A/{EXPERIMENT}/metrics.json")
    assert metrics["n_params"] == sizes.total_params - plan["removed_params"]
    importance = next(results.rglob("reap/**/*.parquet"))
    assert set(pq.read_table(importance)["block"].to_pylist()) == {"experts"}

    layers = read_table(results / "consolidated/layers.parquet")
    kept = layers[layers.experiment == EXPERIMENT]
    assert kept.kept_experts.tolist() == [4, 4]
    assert kept.kept_mlp_channels.tolist() == [24, 24]
    assert (kept.params_before - kept.params_after).tolist() == [2 * 2336] * 2
    structure = read_json(results / f"reports/A/structures/{EXPERIMENT}.json")
    assert structure["deployment"]["stock"]["has_shape"]
    assert structure["layers"][0]["mlp"] | {"experts_before": 6, "experts_after": 4} == structure["layers"][0]["mlp"]
    assert "experts: 6 -> 4" in (results / f"reports/A/structures/{EXPERIMENT}.txt").read_text(encoding="utf-8")
    assert EXPERIMENT in (results / "reports/A/report.txt").read_text(encoding="utf-8")

    checkpoint = results / f"checkpoints/A/{EXPERIMENT}"
    assert not list(checkpoint.glob("*.py"))
    weights = load_file(checkpoint / "model.safetensors")
    assert weights["model.layers.0.mlp.gate.weight"].shape == (4, 32)
    assert sum("layers.0.mlp.experts." in name for name in weights) == 4 * 3
    assert "8 of 12 experts are kept" in (checkpoint / "README.md").read_text(encoding="utf-8")
    found = load_in_fresh_process(results, checkpoint, tmp_path / "requests.json", EXPERIMENT)
    samples = read_table(results / f"experiments/A/{EXPERIMENT}/samples.parquet")
    assert (found["class"], found["layers"]) == ("Qwen3MoeForCausalLM", 2)
    np.testing.assert_allclose(found["found"], samples.loglikelihood, atol=1e-4, rtol=0)
    config = read_json(results / "checkpoints/A/channels-seq16-n3-p20/config.json")
    assert config["moe_intermediate_size"] == 16


@pytest.mark.long
def test_experts_of_a_dense_model_are_refused(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    study["methods"] = METHODS[:1]
    study["grid"]["methods"] = ["reap"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("-n", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    line = "model 'A': units [expert]: the model has no experts, its MLPs are dense; leave out these methods"
    assert line in done.stdout + done.stderr
