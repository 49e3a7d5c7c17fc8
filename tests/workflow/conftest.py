"""The default study, run once: in `build/default-run`, which later test runs find finished."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Run

DEFAULT_CONFIG = str(REPOSITORY / "config/config.yaml")


@dataclass(frozen=True)
class DefaultRun:
    """A finished run of the default study."""

    directory: Path
    results: Path


@pytest.fixture(scope="session")
def default_run(snakemake: Run) -> DefaultRun:
    """Run the default study from nothing (about five minutes), or bring an earlier test run up to date."""
    directory = REPOSITORY / "build/default-run"
    directory.mkdir(parents=True, exist_ok=True)
    done: subprocess.CompletedProcess[str] = snakemake(
        "--configfile", DEFAULT_CONFIG, directory=directory, timeout_s=1800
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return DefaultRun(directory, directory / "results/sandbox")
