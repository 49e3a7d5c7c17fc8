"""Generative tasks in the workflow: own columns and an own section, and refused in a race."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from espalier.files import read_json, write_parquet
from espalier.sandbox.corpora import make_task_documents
from espalier.sandbox.world import make_world
from tests.conftest import Run

pytestmark = pytest.mark.long


def test_generative_tasks_have_their_own_columns(planned_study: dict[str, Any], tmp_path: Path, snakemake: Run) -> None:
    world = make_world(0)
    for split in ("train", "validation"):
        rows = make_task_documents(world, "boolq", split, 5, 0)
        write_parquet(tmp_path / f"tasks/boolq-seq2seq/{split}.parquet", pa.Table.from_pylist(rows))
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        path = tmp_path / "model" / name
        path.write_text(json.dumps(read_json(path) | {key: 512}), encoding="utf-8")  # an answer may have 256 tokens
    (tmp_path / "results/tiny/models/A.json").unlink()
    evaluation = planned_study["evaluation"] | {"tasks": ["piqa", "boolq-seq2seq"]}

    def run(*targets: str, **changes: Any) -> Any:
        study = planned_study | {"evaluation": evaluation | changes}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        return snakemake(*targets, "--configfile", "study.yaml", directory=tmp_path)

    done = run("consolidated", "results/tiny/reports/A/report.txt")
    assert done.returncode == 0, done.stderr[-4000:]
    table = pd.read_parquet(tmp_path / "results/tiny/consolidated/experiments.parquet")
    column = "gen_boolq-seq2seq_exact_match"
    assert table[column].between(0, 1).all()
    pd.testing.assert_series_equal(table["acc_mean"], table["acc_piqa"], check_names=False)
    for experiment in table["experiment"]:
        folder = "baseline/A" if experiment == "baseline" else f"experiments/A/{experiment}"
        metrics = read_json(tmp_path / f"results/tiny/{folder}/metrics.json")
        answers = pd.read_parquet(tmp_path / f"results/tiny/{folder}/generations.parquet")
        assert len(answers) == metrics["generation"]["boolq-seq2seq"]["n_samples"] == 5
        right = answers["answer"].str.strip().str.lower() == answers["target"].str.strip().str.lower()
        assert metrics["generation"]["boolq-seq2seq"]["metrics"]["exact_match"]["value"] == right.mean()
    report = (tmp_path / "results/tiny/reports/A/report.txt").read_text(encoding="utf-8")
    assert "Generative tasks" in report
    # A race compares means of documents, so it refuses a task that is not in the mean.
    refused = run("evaluations", racing={"rungs": [0.6, 1.0]})
    assert refused.returncode != 0
    assert "evaluation.racing: 'boolq-seq2seq' is a generative task, which cannot be raced; take it out of" in (
        refused.stdout + refused.stderr
    )
