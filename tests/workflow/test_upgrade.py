"""Results of version 0.1.0 stay valid: later versions rerun nothing but cheap rules, and read what it wrote."""

import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import REPOSITORY, Run, job_counts

ARCHIVE = REPOSITORY / "tests/data/upgrade/studies-0.1.0.tar.xz"
# Rules that need neither a GPU nor a network and take seconds.
CHEAP = {
    "all", "total", "check_calibration", "check_recovery", "consolidate_study", "consolidate", "consolidate_recovery",
    "choose_recovered", "describe_export", "analyse", "analyse_study", "analyse_recovery", "draw_model",
    "draw_study", "report_model", "report_cross_model", "report_index", "compare_structures",
    "recovered", "inference", "export",
}  # fmt: skip
TARGETS = {"small": ("all", "recovered"), "staged": ("all",)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both studies, as a user of version 0.1.0 has it."""
    folder = tmp_path_factory.mktemp("upgrade")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("study", list(TARGETS))
def test_a_finished_study_reruns_only_cheap_rules(study: str, finished: Path, snakemake: Run) -> None:
    done = snakemake("-n", *TARGETS[study], "--configfile", f"{study}.yaml", directory=finished)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    jobs = {} if "Nothing to be done" in printed else job_counts(printed)
    assert set(jobs) <= CHEAP


@pytest.mark.parametrize("study", list(TARGETS))
def test_the_tables_of_a_finished_study_are_read_and_equal(study: str, finished: Path, snakemake: Run) -> None:
    """Recipes of the old version are accepted, and its numbers are those of the new tables; without any weights."""
    shutil.rmtree(finished / "local_model", ignore_errors=True)
    table = finished / f"results/{study}/consolidated/experiments.parquet"
    before = pd.read_parquet(table)
    table.unlink()
    done = snakemake("--cores", "1", "consolidated", "--configfile", f"{study}.yaml", directory=finished)
    assert done.returncode == 0, done.stderr
    after = pd.read_parquet(table)
    assert set(before.columns) <= set(after.columns)
    pd.testing.assert_frame_equal(after[before.columns], before)


def test_measured_and_exported_models_are_not_made_again(finished: Path, snakemake: Run) -> None:
    """They depend on cheap rules, whose sources changed: once those have run, nothing expensive is left."""
    described = [str(path.relative_to(finished)) for path in finished.glob("results/small/exports/*/*.json")]
    assert len(described) == 6
    done = snakemake("--cores", "1", *described, "--configfile", "small.yaml", directory=finished)
    assert done.returncode == 0, done.stderr
    done = snakemake("-n", "recovered", "inference", "export", "--configfile", "small.yaml", directory=finished)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    assert "Nothing to be done" in printed or set(job_counts(printed)) <= CHEAP


def test_a_lost_result_comes_from_the_store(finished: Path, snakemake: Run) -> None:
    """A store filled by the old version still serves: nothing is evaluated again."""
    lost = finished / "results/small/experiments/Local/random-p20"
    (lost / "metrics.json").unlink()
    (lost / "samples.parquet").unlink()
    target = "results/small/experiments/Local/random-p20/metrics.json"
    done = snakemake("--cores", "1", target, "--configfile", "small.yaml", directory=finished)
    assert done.returncode == 0, done.stderr
    log = finished / "results/small/logs/evaluate/Local/random-p20.log"
    assert "acc_mean" not in log.read_text(encoding="utf-8")  # the line that each evaluation logs
    assert (lost / "metrics.json").is_file()
