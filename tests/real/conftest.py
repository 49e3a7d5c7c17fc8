"""Fixture: a small study of a real pretrained model on real data. It runs once.

Model and data are not part of the repository. Two environment variables name their folders:

* `ESPALIER_REAL_MODEL`: SmolLM2-135M-Instruct; any other Llama, Qwen or Mistral model works as well.
* `ESPALIER_REAL_DATA`: `tasks/{task}/{split}.parquet`, `texts/wikitext2_test.jsonl` and `texts/c4_sample.jsonl`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedModel

from espalier.config.evaluation import SEVEN_TASKS
from espalier.files import read_json
from espalier.planning.plan import Plan
from tests.conftest import Run

MODEL, DATA = "ESPALIER_REAL_MODEL", "ESPALIER_REAL_DATA"
LIMIT = 4
SEQ_LEN, N_SAMPLES = 64, 8
RATIOS = (0.1, 0.3)


@dataclass(frozen=True)
class RealStudy:
    """A finished study.

    Attributes:
        model: Folder of the model.
        data: Folder of tasks and texts.
        results: Folder of the results.
    """

    model: Path
    data: Path
    results: Path

    def experiment(self, ratio: float) -> str:
        """Return the name of the experiment at a pruning ratio."""
        return f"blockwise-seq{SEQ_LEN}-n{N_SAMPLES}-p{ratio * 100:g}"

    def folder(self, ratio: float) -> Path:
        """Return the folder with metrics and samples at a pruning ratio; 0 is the unpruned model."""
        results = self.results
        return results / f"experiments/SmolLM2/{self.experiment(ratio)}" if ratio else results / "baseline/SmolLM2"

    def plan(self, ratio: float) -> Plan:
        """Read the plan of a pruning ratio."""
        return Plan.from_dict(read_json(self.folder(ratio) / "plan.json"))

    def load(self) -> PreTrainedModel:
        """Load the unpruned model in float32 with plain transformers."""
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        return model.eval()


@pytest.fixture(scope="session")
def real_study(snakemake: Run, tmp_path_factory: pytest.TempPathFactory) -> RealStudy:
    """Run the study: evaluations in float32, unpruned and at two ratios; reports, a checkpoint and a GGUF file."""
    for name in (MODEL, DATA):
        if name not in os.environ:
            pytest.skip(f"{name} is not set; tests/real/conftest.py says what it names")
    model, data = (Path(os.environ[name]).resolve(strict=True) for name in (MODEL, DATA))
    folder = tmp_path_factory.mktemp("real")
    (folder / "study.yaml").write_text(yaml.safe_dump(study(model, data)), encoding="utf-8")
    done = snakemake("all", "export", "--cores", "all", "--configfile", "study.yaml", directory=folder)
    assert done.returncode == 0, done.stderr[-5000:]
    return RealStudy(model, data, folder / "results/real")


def study(model: Path, data: Path) -> dict[str, Any]:
    """Return the config of the study. The comparisons need only few documents and calibration sequences."""
    return {
        "study": "real",
        "models": [{"name": "SmolLM2", "family": "Llama", "kind": "instruct", "path": str(model)}],
        "methods": [{"name": "blockwise", "scope": "block"}],
        "grid": {
            "methods": ["blockwise"], "taylor_seq_len": [SEQ_LEN], "taylor_num_samples": [N_SAMPLES],
            "pruning_ratio": list(RATIOS),
        },
        "calibration": {"dataset": str(data / "texts/c4_sample.jsonl")},
        "evaluation": {
            "data": str(data / "tasks"), "tasks": list(SEVEN_TASKS), "limit": LIMIT, "dtype": "float32",
            "device": "cpu", "experiments_per_job": 2,
            "perplexity": {
                "window": 256, "stride": 256,
                "texts": [{
                    "name": "wikitext2", "dataset": str(data / "texts/wikitext2_test.jsonl"), "joiner": "\n\n",
                    "max_tokens": 1024,
                }],
            },
        },
        "export": {"formats": ["transformers", "gguf"], "gguf_type": "F16"},
    }  # fmt: skip
