"""A study that removes whole layers: plans, evaluations, reports, and checkpoints that stock code loads."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from espalier.files import read_json, read_table
from tests.conftest import Run

EXPERIMENT = "shallow-p20"
# Loads a checkpoint with transformers alone, and scores requests one by one.
FRESH = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, requests = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
AutoTokenizer.from_pretrained(folder)
found = []
with torch.inference_mode():
    for context, continuation in json.load(open(requests)):
        tokens = torch.tensor([[*context, *continuation]])
        log_probs = model(tokens[:, :-1]).logits[0].log_softmax(-1)
        found.append(log_probs[len(context) - 1 :].gather(1, tokens[0, len(context) :, None]).sum().item())
assert not any(name.startswith("espalier") for name in sys.modules)
print(json.dumps({"class": type(model).__name__, "layers": model.config.num_hidden_layers, "found": found}))
"""


@pytest.mark.long
def test_a_depth_study_from_plan_to_stock_checkpoint(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """Magnitude needs no pass over calibration text, so few jobs are needed."""
    results = tmp_path / "results/tiny"
    study["methods"] = [{"name": "shallow", "units": ["layer"], "criterion": "magnitude"}]
    study["grid"] = {"methods": ["shallow"], "pruning_ratio": [0.2]}
    study["export"] = {"stock": True}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("reports", "structures", "export", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]

    # Both layers have 32 * (32 + 16 + 16 + 32) parameters in attention, 3 * 32 * 48 in the MLP and 2 * 32 in norms,
    # which is nearest to a fifth of the model. The one whose weights have the smaller sum of |w| goes.
    weights = load_file(tmp_path / "model/model.safetensors")
    sums = [
        sum(float(value.abs().double().sum()) for name, value in weights.items() if f"layers.{layer}." in name)
        for layer in range(2)
    ]
    plan = read_json(results / f"experiments/A/{EXPERIMENT}/plan.json")
    assert [layer.get("removed", False) for layer in plan["layers"]] == [layer == np.argmin(sums) for layer in range(2)]
    assert plan["removed_params"] == 32 * (32 + 16 + 16 + 32) + 3 * 32 * 48 + 2 * 32 == 7744
    metrics = read_json(results / f"experiments/A/{EXPERIMENT}/metrics.json")
    assert metrics["n_params"] == read_json(results / "models/A.json")["n_params"] - 7744
    structure = read_json(results / f"reports/A/structures/{EXPERIMENT}.json")
    assert structure["deployment"]["stock"]["has_shape"]
    assert EXPERIMENT in (results / "reports/A/report.txt").read_text(encoding="utf-8")

    checkpoint = results / "checkpoints/A/best"
    assert not list(checkpoint.glob("*.py"))
    found = load_in_fresh_process(results, checkpoint, tmp_path / "requests.json")
    samples = read_table(results / f"experiments/A/{EXPERIMENT}/samples.parquet")
    assert (found["class"], found["layers"]) == ("LlamaForCausalLM", 1)
    np.testing.assert_allclose(found["found"], samples.loglikelihood, atol=1e-4, rtol=0)


def load_in_fresh_process(results: Path, checkpoint: Path, file: Path, experiment: str = EXPERIMENT) -> dict[str, Any]:
    """Score the evaluated requests with a checkpoint in a process that has no code of ours."""
    samples = read_table(results / f"experiments/A/{experiment}/samples.parquet")
    requests = read_table(results / "requests/A.parquet")
    pairs = samples.merge(requests, on=["task", "doc_id", "choice"], how="left", validate="one_to_one")
    assert len(pairs) == len(samples) == 12  # six documents with two choices
    rows = [
        [list(map(int, row.context)), list(map(int, row.continuation))]
        for row in pairs[["context", "continuation"]].itertuples()
    ]
    file.write_text(json.dumps(rows), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, checkpoint, file], cwd=file.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
