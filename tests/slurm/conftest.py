"""A small study for Slurm, the profile as a site would change it, and a cluster to run on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.slurm.cluster import DIES_WITH_US, Cluster, UnavailableError, ensure_installed

PROFILE = REPOSITORY / "profiles/slurm"
# One model, so that one group holds all plans; little to learn, read and evaluate, but every stage of a sweep. With
# `auto` jobs ask for a GPU, and run on the CPU when torch finds none behind the fake device.
STUDY: dict[str, Any] = {
    "study": "slurm",
    "models": [{"name": "Llama", "family": "Llama", "kind": "base", "sandbox": {"architecture": "llama", "steps": 40}}],
    "methods": [
        {"name": "taylor", "scope": "none"},
        {"name": "blockwise", "scope": "block"},
    ],
    "grid": {
        "methods": ["taylor", "blockwise"], "taylor_seq_len": [16], "taylor_num_samples": [4, 8],
        "pruning_ratio": [0.5],
    },
    "calibration": {"dataset": "sandbox"},
    "sandbox": {
        "documents_per_task": 40, "training_pages": 400, "calibration_pages": 60, "perplexity_lines": 30,
        "vocab_size": 400,
    },
    "evaluation": {
        "data": "sandbox", "tasks": ["boolq", "piqa", "arc_easy"], "device": "auto", "dtype": "float32",
        "experiments_per_job": 2,
        "perplexity": {"window": 64, "stride": 32, "texts": [{"name": "wikitext2", "dataset": "sandbox"}]},
    },
}  # fmt: skip
# With so little confidence, an experiment is stopped as soon as it is behind: after 30 of 40 documents of each task.
RACED: dict[str, Any] = STUDY | {
    "evaluation": STUDY["evaluation"] | {"racing": {"confidence": 0.05, "rungs": [0.1, 1.0]}}
}
SILENCE_S = 300.0  # of Snakemake, after which it hangs: a job takes under a minute on a slow and busy machine
N_PLANS = 4  # 2 methods x 2 counts: as many as there are GPUs
# Each Python process of a job notes, before it runs anything else: which job it is in, which GPUs it sees, which file
# would tell it to stop.
WITNESS = """\
import os, sys
names = ("SLURM_JOB_ID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "ESPALIER_STOP_FILE")
script = next((word for word in sys.orig_argv if "/.snakemake/scripts/" in word), None)
if script:
    rule = script.removesuffix(".py").rsplit(".", 1)[-1]
    with open(os.environ["WITNESS"], "a", encoding="utf-8") as file:
        file.write(" ".join([rule, *(os.environ.get(name, "-") for name in names)]) + "\\n")
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of two nodes; the tests that want it are skipped, with the reason, where there can be none."""
    try:
        ensure_installed()
    except UnavailableError as reason:
        pytest.skip(f"no Slurm to test on: {reason}")
    started = Cluster()
    try:
        started.start()
        yield started
    finally:
        started.stop()


class Site:
    """A folder on the cluster in which the study is run, with the site's changes to the profile."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.results = folder / "results/slurm"
        self._witness = folder / "witness.txt"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "witness").mkdir()
        (folder / "witness/sitecustomize.py").write_text(WITNESS, encoding="utf-8")
        self.configure(STUDY)
        (folder / "profile").mkdir()
        (folder / "profile/config.yaml").write_text(yaml.safe_dump(_site_profile()), encoding="utf-8")

    def configure(self, study: dict[str, Any]) -> None:
        """Write the config of the study."""
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """Environment of Snakemake and of its jobs."""
        path = os.pathsep.join(filter(None, [str(self.folder / "witness"), os.environ.get("PYTHONPATH")]))
        return {**self.cluster.environment, "PYTHONPATH": path, "WITNESS": str(self._witness)}

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start Snakemake, and see that it does not outlive the block; its output goes to `snakemake.log`."""
        command = [
            *DIES_WITH_US, sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"),
            "--configfile", "study.yaml", "--workflow-profile", "profile", *arguments,
        ]  # fmt: skip
        with (self.folder / "snakemake.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, text=True, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, *arguments: str) -> None:
        """Run Snakemake to its end, and fail with its last words unless that is a good one."""
        with self.running(*arguments) as process:
            self.finish(process)

    def finish(self, process: subprocess.Popen[str]) -> None:
        """Wait for Snakemake while it says something: it waits for ever when it has lost its jobs."""
        status, said = None, -1
        while status is None and said < (said := len(self.log)):
            try:
                status = process.wait(timeout=SILENCE_S)
            except subprocess.TimeoutExpired:
                continue
        assert status == 0, f"status {status}\n{self.log[-3000:]}\n{self.cluster.ask('squeue', '-t', 'all')}"

    @property
    def log(self) -> str:
        """What Snakemake has said so far."""
        return (self.folder / "snakemake.log").read_text(encoding="utf-8")

    def scripts(self) -> list[tuple[str, str, str, str]]:
        """List the scripts that ran: rule, Slurm job, node, visible GPUs ('-' for none)."""
        return [(rule, job, node, gpus) for rule, job, node, gpus, _ in self._witnessed()]

    def stop_files(self) -> set[str]:
        """Return what jobs were told to watch for a sign that the workflow was told to stop."""
        return {file for *_, file in self._witnessed()}

    def _witnessed(self) -> list[list[str]]:
        return [line.split() for line in self._witness.read_text(encoding="utf-8").splitlines()]


def _site_profile() -> dict[str, Any]:
    """Change the shipped profile: one job asks for too little memory at first, and one job at a time runs a model."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text(encoding="utf-8"))
    profile["resources"]["model_jobs"] = 1
    profile["set-resources"]["train_sandbox_model"] = {"mem_mb": "400 * attempt"}
    return profile


@pytest.fixture(scope="session")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The folder of the sweep."""
    return Site(cluster, tmp_path_factory.mktemp("slurm"))
