"""The tiny study that the faults are tried on, and how to run it and compare its results."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.workflow.conftest import write_tiny_study

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path("results/tiny")
TABLES = "consolidated"
LIMIT_S = 7200.0
NONE: Mapping[str, Any] = {}


def write_study(
    folder: Path, ratios: Sequence[float] = (0.2,), samples: Sequence[int] = (2,), sections: Mapping[str, Any] = NONE
) -> None:
    """Write the model, data and config of a tiny study into a new folder.

    Args:
        folder: Folder of the study.
        ratios: Pruning ratios.
        samples: Sample counts of calibration. Each ratio has one blockwise experiment per count, and a random one.
        sections: More sections of the config.
    """
    folder.mkdir(parents=True)
    study: dict[str, Any] = write_tiny_study(folder)
    study["grid"] |= {"pruning_ratio": list(ratios), "taylor_num_samples": list(samples)}
    study |= sections
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")


def copy_planned(finished: Path, folder: Path) -> None:
    """Copy a finished study as it was before its first experiment was evaluated."""
    copy_study(finished, folder)
    results = folder / RESULTS
    shutil.rmtree(results / "consolidated")
    for store in results.glob("experiments/*/.store"):
        shutil.rmtree(store)
    for file in (*results.glob("experiments/*/*/metrics.json"), *results.glob("experiments/*/*/samples.parquet")):
        file.unlink()


def copy_study(finished: Path, folder: Path) -> None:
    """Copy a study with its modification times and hard links, so that nothing in the copy is stale."""
    subprocess.run(["cp", "--archive", finished, folder], check=True)


def start(folder: Path, *arguments: str, environment: Mapping[str, str] = NONE) -> subprocess.Popen[str]:
    """Start Snakemake on a study, in a process group of its own.

    Args:
        folder: Folder of the study.
        arguments: Arguments of Snakemake; the target first.
        environment: More environment variables.
    """
    command = [sys.executable, "-m", "snakemake", *arguments, "--snakefile", str(REPOSITORY / "Snakefile")]
    return subprocess.Popen(
        [*command, "--configfile", "study.yaml", "--cores", "1", "--quiet", "rules", "reason", "host"],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(folder: Path, *arguments: str, environment: Mapping[str, str] = NONE) -> tuple[int, str]:
    """Run Snakemake on a study; return its exit status and what it printed."""
    unlock(folder)
    process = start(folder, *arguments, environment=environment)
    printed, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, printed


def run_to_end(folder: Path, *arguments: str) -> None:
    """Run Snakemake on a study.

    Raises:
        RuntimeError: If it fails.
    """
    status, printed = run(folder, *arguments)
    if status:
        raise RuntimeError(printed[-4000:])


def unlock(folder: Path) -> None:
    """Remove the lock of a killed Snakemake, as `--unlock` does."""
    shutil.rmtree(folder / ".snakemake/locks", ignore_errors=True)


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the SHA-256 of the files of a study that match a pattern, by path under its results."""
    root = folder / RESULTS
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in sorted(root.glob(pattern))
        if path.is_file()
    }


def table_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every table of a study."""
    return hashes(folder, "consolidated/**/*")
