"""The same study again: equal tables; with other batch sizes and cores, equal plans but for ties, and close values."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tools.repeatability import compare_studies, describe

from espalier.errors import UserError
from tests.conftest import Run

TABLES = ("experiments", "evaluations", "layers")
NEAR = 1e-5  # scores this close to the threshold may fall on either side of it


def fresh_run(folder: Path, study: dict[str, Any], source: Path, snakemake: Run, *arguments: str) -> Path:
    """Run a study from its checked model and its requests in a folder of its own; return its results."""
    shutil.copytree(source, folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("consolidated", "--configfile", "study.yaml", *arguments, directory=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "results/tiny"


@pytest.fixture
def sweep(study: dict[str, Any]) -> dict[str, Any]:
    study["grid"] |= {"pruning_ratio": [0.1, 0.3], "taylor_num_samples": [4, 16]}
    study["evaluation"]["experiments_per_job"] = 6
    return study


@pytest.mark.long
def test_runs_of_one_study(sweep: dict[str, Any], tmp_path: Path, snakemake: Run) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("model", "tasks", "calibration.parquet", "perplexity.parquet"):
        shutil.move(tmp_path / name, source / name)
    (source / "study.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    done = snakemake("results/tiny/requests/A.parquet", "--configfile", "study.yaml", directory=source)
    assert done.returncode == 0, done.stderr[-3000:]
    first = fresh_run(tmp_path / "first", sweep, source, snakemake)
    again = fresh_run(tmp_path / "again", sweep, source, snakemake)
    for name in TABLES:
        one, other = (pd.read_parquet(run / f"consolidated/{name}.parquet") for run in (first, again))
        pd.testing.assert_frame_equal(one, other, check_exact=True, obj=name)
    exact = compare_studies(first, again)
    assert exact.results == {"acc": 0.0, "ppl": 0.0}

    # One sequence at a time instead of all at once, rows a quarter as long, and jobs side by side.
    sweep["gradients"] = {"token_budget": 16, "layers_per_pass": 1, "checkpointing": True}
    sweep["evaluation"]["token_budget"] = 256
    other = fresh_run(tmp_path / "other", sweep, source, snakemake, "--cores", "2")
    difference = compare_studies(first, other)
    assert len(difference.plans) == 6  # blockwise: 2 counts x 2 ratios; random: 2 ratios
    assert all(plan.farthest < NEAR for plan in difference.plans.values()), describe(difference)
    assert sum(plan.n_differing > 0 for plan in difference.plans.values()) <= 1, describe(difference)
    # A document may fall to the other choice where two are equally likely; here it must not: margins are wide.
    assert difference.results["acc"] == 0.0
    assert difference.results["ppl"] < 1e-5, describe(difference)


def test_runs_of_different_studies_are_refused(tmp_path: Path) -> None:
    for name, experiment in (("a", "x"), ("b", "y")):
        table = pd.DataFrame({"model": ["M"], "experiment": [experiment], "acc_mean": [0.5], "ppl_t": [2.0]})
        (tmp_path / name / "consolidated").mkdir(parents=True)
        table.to_parquet(tmp_path / name / "consolidated/experiments.parquet")
    with pytest.raises(UserError, match="hold different experiments; give two runs of one study"):
        compare_studies(tmp_path / "a", tmp_path / "b")
