"""A sweep over a tiny local model: what cannot be done is one line, and what others finished stays."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from espalier.files import read_json, write_parquet
from espalier.importance.criteria import CRITERIA
from espalier.sandbox.corpora import make_lines, make_pages, make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from tests.conftest import Run
from tests.unit.conftest import random_model


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Any]:
    """A study of one random model on local files: one task, one perplexity text, one calibration text."""
    world = make_world(0)
    pages = make_pages(world, "training", 60, 0)
    tokenizer = wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=False)
    random_model("llama", len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split in splits("piqa"):
        documents = pa.Table.from_pylist(make_task_documents(world, "piqa", split, 6, 0))
        write_parquet(tmp_path / f"tasks/piqa/{split}.parquet", documents)
    write_parquet(tmp_path / "calibration.parquet", pa.table({"text": make_pages(world, "calibration", 40, 0)}))
    write_parquet(tmp_path / "perplexity.parquet", pa.table({"text": make_lines(world, "perplexity", 20, 0)}))
    text = {"name": "plain", "dataset": "perplexity.parquet"}
    return {
        "study": "tiny",
        "models": [{"name": "A", "family": "Llama", "kind": "base", "path": "model"}],
        "methods": [{"name": "blockwise", "scope": "block"}, {"name": "random", "criterion": "random"}],
        "grid": {
            "methods": ["blockwise", "random"], "taylor_seq_len": [16], "taylor_num_samples": [3],
            "pruning_ratio": [0.2],
        },
        "calibration": {"dataset": "calibration.parquet"},
        "evaluation": {
            "tasks": ["piqa"], "data": "tasks", "device": "cpu",
            "perplexity": {"window": 64, "stride": 32, "texts": [text]},
        },
    }  # fmt: skip


def run(snakemake: Run, tmp_path: Path, study: dict[str, Any], *targets: str) -> tuple[int, list[str]]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake(*targets, "--configfile", "study.yaml", directory=tmp_path)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()


def test_a_ratio_that_no_plan_can_reach(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """It is said before anything runs: the sizes of the model stand in its files."""
    study["grid"]["pruning_ratio"] = [0.2, 0.97]
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status != 0
    assert any(line.startswith("  model 'A': pruning_ratio 0.97 means removing") for line in lines), lines
    assert not (tmp_path / "results").exists()


def test_every_criterion_makes_plans(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """One pass for each criterion that reads text, one look at the weights; a wider grid on the ladder adds no pass."""
    study["methods"] = [{"name": name, "criterion": name} for name in CRITERIA]
    study["methods"].append({"name": "magnitude-layer", "criterion": "magnitude", "scope": "layer"})
    study["grid"]["methods"] = [method["name"] for method in study["methods"]]
    assert run(snakemake, tmp_path, study, "plans", "gradients")[0] == 0
    folder = tmp_path / "results/tiny"
    made = sorted(str(path.relative_to(folder)) for path in (folder / "importance").rglob("*.parquet"))
    assert made == [
        "importance/A/magnitude.parquet",
        *(f"importance/A/{name}/calibration-s0/seq16.parquet" for name in ("taylor", "taylor2", "wanda")),
    ]
    plans = [read_json(path) for path in folder.glob("experiments/A/*/plan.json")]
    assert len(plans) == 6
    assert all(0.19 < plan["removed_param_fraction"] <= 0.2 for plan in plans)
    tables = [pd.read_parquet(folder / path) for path in made]
    assert len({table.importance.sum() for table in tables}) == 4  # no criterion stands in for another
    study["grid"]["taylor_num_samples"] = [2, 3]
    status, lines = run(snakemake, tmp_path, study, "plans")
    assert status == 0
    assert {line.split()[1] for line in lines if line.startswith("[") and "removes" in line} == {"A"}
    assert not any("[gradients" in line or "[taylor2" in line for line in lines)


def test_a_calibration_text_that_is_too_short(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    study["grid"]["taylor_num_samples"] = [3, 500]
    status, lines = run(snakemake, tmp_path, study, "gradients")
    assert status != 0
    assert (
        "[gradients A seq16] error: calibration: 500 sequences of 16 tokens asked for, but only 40 of 40 documents "
        "have 16 tokens; use fewer or shorter samples, or a longer calibration text"
    ) in lines


def test_calibration_text_that_is_also_evaluated(snakemake: Run, tmp_path: Path, study: dict[str, Any]) -> None:
    """Under another file name, so that only its tokens tell."""
    text = (tmp_path / "calibration.parquet").read_bytes()
    (tmp_path / "perplexity.parquet").write_bytes(text)
    study["grid"]["taylor_seq_len"] = [64]
    status, lines = run(snakemake, tmp_path, study, "consolidated")
    assert status != 0
    expected = (
        "calibration: sequence 0 shares 50 consecutive tokens with a perplexity text; calibrate on text that is not"
    )
    assert any(expected in line for line in lines)
    assert not (tmp_path / "results/tiny/consolidated").exists()


def test_a_truncated_table_is_named_and_stops_no_other_experiment(
    snakemake: Run, tmp_path: Path, study: dict[str, Any]
) -> None:
    assert run(snakemake, tmp_path, study, "gradients")[0] == 0
    path = tmp_path / "results/tiny/importance/A/taylor/calibration-s0/seq16.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status != 0
    assert any("seq16.parquet: is not a complete Parquet file" in line and "delete it" in line for line in lines)
    folder = tmp_path / "results/tiny/experiments/A"
    assert [found.parent.name for found in folder.glob("*/metrics.json")] == ["random-p20"]
    path.unlink()
    status, lines = run(snakemake, tmp_path, study, "evaluations")
    assert status == 0
    assert not any("[evaluate A random-p20]" in line for line in lines)
    finished = sorted(found.parent.name for found in folder.glob("*/metrics.json"))
    assert finished == ["blockwise-seq16-n3-p20", "random-p20"]
