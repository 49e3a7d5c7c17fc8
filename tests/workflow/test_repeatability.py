"""The same study with other batch sizes and cores: equal plans but for ties, and close values."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tools.repeatability import compare_studies, describe

from espalier.errors import UserError
from tests.conftest import Run
from tests.workflow.conftest import copy_planned

NEAR = 1e-5  # scores this close to the threshold may fall on either side of it


def fresh_run(folder: Path, study: dict[str, Any], snakemake: Run, *arguments: str) -> Path:
    """Run a study in a new folder, from its checked model and its requests; return its results."""
    study["grid"] |= {"pruning_ratio": [0.1, 0.3], "taylor_num_samples": [4, 16]}
    study["evaluation"]["experiments_per_job"] = 6
    for name in ("gradients", "importance", "priors", "experiments", "baseline"):
        shutil.rmtree(folder / "results/tiny" / name)
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    done = snakemake("consolidated", "--configfile", "study.yaml", *arguments, directory=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "results/tiny"


@pytest.mark.long
def test_other_batch_sizes_and_cores(tiny_run: Path, tmp_path: Path, snakemake: Run) -> None:
    """Plans are equal but for ties, and values are close. `test_faults.py` tests that equal runs have equal tables."""
    folders = [tmp_path / "first", tmp_path / "other"]
    studies = [copy_planned(tiny_run, folder) for folder in folders]
    # One sequence at a time instead of all at once, rows a quarter as long, and jobs one after the other.
    studies[1]["gradients"] = {"token_budget": 16, "layers_per_pass": 1, "checkpointing": True}
    studies[1]["evaluation"]["token_budget"] = 256
    first = fresh_run(folders[0], studies[0], snakemake, "--cores", "2")
    other = fresh_run(folders[1], studies[1], snakemake)
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
