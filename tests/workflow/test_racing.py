"""A race in the workflow: a static DAG, results for every experiment, and nothing answered twice."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from espalier.files import read_json, write_parquet
from espalier.sandbox.corpora import make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.world import make_world
from tests.conftest import Run
from tests.parquet import without_description

pytestmark = pytest.mark.long

# With so little confidence, an experiment is stopped as soon as it is behind.
RACING = {"confidence": 0.05, "rungs": [0.6, 1.0]}
TABLE = "results/tiny/consolidated/experiments.parquet"


def run(snakemake: Run, folder: Path, study: dict[str, Any], *targets: str) -> str:
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake(*targets, "--configfile", "study.yaml", directory=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def answered(folder: Path) -> dict[str, int]:
    """Return the time of each part of the answers in the store."""
    parts = folder.glob("results/tiny/experiments/A/.store/*.answers/*/answers.parquet")
    return {str(path): path.stat().st_mtime_ns for path in parts}


def test_a_race_switched_on_extended_and_switched_off(
    planned_study: dict[str, Any], tmp_path: Path, snakemake: Run
) -> None:
    """No document is answered twice."""
    world = make_world(0)
    for split in splits("piqa"):
        documents = pa.Table.from_pylist(make_task_documents(world, "piqa", split, 60, 0))
        write_parquet(tmp_path / f"tasks/piqa/{split}.parquet", documents)
    grid, evaluation = planned_study["grid"], planned_study["evaluation"]
    grid["taylor_seq_len"] = [16, 24]
    raced = planned_study | {"evaluation": evaluation | {"racing": RACING}}
    run(snakemake, tmp_path, raced, "consolidated", "results/tiny/reports/A/report.txt")
    table = pd.read_parquet(tmp_path / TABLE).set_index("experiment")
    assert table["race_keep"].dropna().to_list() == ["best"] * 3
    assert set(table["race_n_documents"].dropna()) == {36, 60}
    assert table["race_stopped_by"].notna().sum() == (table["race_n_documents"] == 36).sum() >= 1
    assert table.loc[table["race_n_documents"] == 36, "ppl_plain"].isna().all()
    survivors = table[(table["race_n_documents"] == 60) & (table["criterion"] != "random")]
    best = read_json(tmp_path / "results/tiny/consolidated/A/global_best_config.json")["best"]
    assert best["experiment"] in survivors.index
    # Methods are compared on the 36 documents that all experiments answered, the best experiment on all.
    analysis = read_json(tmp_path / "results/tiny/reports/A/analysis.json")
    assert analysis["comparisons"]["common_documents"] == {"n_documents": 36, "n_all": 60}
    assert sum(one["n"] for one in analysis["methods"].values()) == 3
    assert analysis["best"]["acc_mean"] == table.loc[best["experiment"], "acc_mean"]
    assert (tmp_path / "results/tiny/reports/A/figures/race.svg").is_file()
    report = " ".join((tmp_path / "results/tiny/reports/A/report.txt").read_text(encoding="utf-8").split())
    assert "On 36 of 60 documents, which all experiments answered in the race." in report
    assert without_description(tmp_path / "results/tiny") == []
    before = answered(tmp_path)
    # Another length runs its own rungs, in a race with the others.
    extended = raced | {"grid": grid | {"taylor_seq_len": [16, 20, 24]}}
    run(snakemake, tmp_path, extended, "evaluations")
    after = answered(tmp_path)
    assert before.items() <= after.items()
    added = read_json(tmp_path / "results/tiny/experiments/A/blockwise-seq20-n3-p20/metrics.json")
    assert added["race"]["n_documents"] in {36, 60}
    # Without the race, what was stopped answers the rest.
    whole = extended | {"evaluation": evaluation}
    run(snakemake, tmp_path, whole, "consolidated")
    assert answered(tmp_path).items() == after.items()
    complete = pd.read_parquet(tmp_path / TABLE).set_index("experiment")
    assert "race_keep" not in complete
    assert complete["ppl_plain"].notna().all()
    kept = complete.loc[survivors.index, "acc_mean"]
    pd.testing.assert_series_equal(kept, survivors["acc_mean"])
