"""Use by others: as a module of another workflow, and as the workflow catalogue and snakedeploy expect it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.conftest import REPOSITORY, Run, job_counts

IMPORTING = f"""
configfile: "study.yaml"


module espalier:
    snakefile:
        "{REPOSITORY / "workflow/Snakefile"}"
    config:
        config


use rule * from espalier as espalier_*


rule everything:
    default_target: True
    input:
        rules.espalier_all.input,
"""


@pytest.mark.long
@pytest.mark.usefixtures("planned_study")
def test_a_workflow_of_ten_lines_imports_it(tmp_path: Path, snakemake: Run) -> None:
    """It goes on with what the workflow itself has begun."""
    (tmp_path / "Snakefile").write_text(IMPORTING, encoding="utf-8")
    profile = str(REPOSITORY / "profiles/default")
    done = snakemake("--snakefile", "Snakefile", "--workflow-profile", profile, directory=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_parquet(tmp_path / "results/tiny/consolidated/experiments.parquet")
    assert set(table.status) == {"ok"}
    assert len(table) == 3  # the baseline, blockwise, random
    assert "</html>" in (tmp_path / "results/tiny/reports/A/report.html").read_text(encoding="utf-8")
    again = snakemake("-n", "--snakefile", "Snakefile", "--workflow-profile", profile, directory=tmp_path)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_targets_are_known_by_the_names_that_the_importing_workflow_gives_them(
    study: dict[str, Any], tmp_path: Path, snakemake: Run
) -> None:
    """Partial reports of nothing but a manifest: tables without evaluations, where `all` asks for every one."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    (tmp_path / "Snakefile").write_text(IMPORTING, encoding="utf-8")
    (tmp_path / "results/tiny/models").mkdir(parents=True)
    (tmp_path / "results/tiny/models/A.json").write_text("{}", encoding="utf-8")
    asked = ("--snakefile", "Snakefile", "--workflow-profile", str(REPOSITORY / "profiles/default"))

    def dry_run(*targets: str) -> str:
        done = snakemake("-n", *targets, *asked, directory=tmp_path)
        return done.stdout + done.stderr

    partial, everything = dry_run("espalier_partial_reports"), dry_run("espalier_all")
    assert "espalier_report_cross_model" in job_counts(partial)
    assert "espalier_evaluate" not in job_counts(partial)
    assert job_counts(everything)["espalier_evaluate"] == 2
    unset = "inference: the target needs this section of the config; give `inference: {}`"
    assert unset in dry_run("espalier_inference")
    # Words that are no targets: a folder, the value of an option.
    (tmp_path / "inference").mkdir()
    shutil.copytree(tmp_path / "results", tmp_path / "inference/results")
    for name in ("study.yaml", "model", "tasks", "calibration.parquet", "perplexity.parquet"):
        (tmp_path / "inference" / name).symlink_to(tmp_path / name)
    other = dry_run("espalier_all", "--directory", "inference", "--omit-from", "espalier_partial_reports")
    assert unset not in other
    assert job_counts(other)["espalier_evaluate"] == 2


def test_the_importing_workflow_keeps_its_environment(
    study: dict[str, Any], tmp_path: Path, snakemake: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own rules may ask a hub and draw bars."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE", "ESPALIER_ALLOW_MISSING")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    shell = " ".join(f"${{{{{name}-unset}}}}" for name in names)
    rule = f"""

rule own:
    output:
        "own.txt",
    shell:
        "echo {shell} > {{output}}"
"""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    (tmp_path / "Snakefile").write_text(IMPORTING + rule, encoding="utf-8")
    done = snakemake("own.txt", "--snakefile", "Snakefile", "--cores", "1", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "own.txt").read_text().split() == ["unset"] * len(names)


def test_rules_without_the_package_say_what_to_install(tmp_path: Path) -> None:
    """What is fetched of a module of a remote repository: Snakefile, rules and scripts, not `src/`."""
    for name in ("rules", "workflow", "envs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "Snakefile", tmp_path / "Snakefile")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--cores",
        "1",
        "--configfile",
        REPOSITORY / "config/quick.yaml",
    ]

    def dry_run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    without = dry_run(clean)
    assert without.returncode != 0
    assert "No module named 'espalier': install the wheel of this version" in without.stdout + without.stderr
    installed = dry_run(clean | {"PYTHONPATH": str(REPOSITORY / "src")})
    assert installed.returncode == 0, installed.stderr[-2000:]


def test_the_catalogue_finds_what_it_lists(snakemake: Run, tmp_path: Path) -> None:
    entry = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert set(entry) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (REPOSITORY / "config/README.md").is_file()
    # snakedeploy writes a module with this path, and copies config/ beside it.
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    done = snakemake("-n", "--snakefile", str(REPOSITORY / "workflow/Snakefile"), "--cores", "1", directory=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
