"""The tiny study that the faults are tried on, and how to run it and compare its results."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml
from tests.script_server import ScriptServer
from tests.snakemake_server import SnakemakeServer
from tests.unit.conftest import random_model
from tests.workflow.conftest import write_tiny_study

from espalier.sandbox.corpora import make_pages
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path("results/tiny")
TABLES = "consolidated"
RECOVERED = "consolidated/recovery.parquet"
LIMIT_S = 7200.0
OPTIONS = ("--configfile", "study.yaml", "--cores", "1", "--quiet", "rules", "reason", "host")
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


def add_neighbours(folder: Path) -> None:
    """Give each file of a study that has not run yet a neighbour of its kind: another model and another length.

    The other model has another tokenizer, so that its requests and results differ.
    """
    tokenizer = wrap(
        train_tokenizer("qwen2", make_pages(make_world(0), "training", 60, 0), 500), model_max_length=128, chat=False
    )
    random_model("qwen2", len(tokenizer), intermediate_size=64).save_pretrained(folder / "model-b")
    tokenizer.save_pretrained(folder / "model-b")
    study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    study["models"].append({"name": "B", "family": "Qwen2", "kind": "base", "path": "model-b"})
    study["grid"]["taylor_seq_len"] = [16, 24]
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
        [*command, *OPTIONS],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1", **environment}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(folder: Path, *arguments: str, environment: Mapping[str, str] = NONE) -> tuple[int, str]:
    """Run Snakemake on a study; return its exit status and what it printed."""
    unlock(folder)
    process = start(folder, *arguments, environment=environment)
    printed, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, printed


def patched_python(folder: Path, source: str) -> dict[str, str]:
    """Write a module that every Python process imports at its start; return the environment variables for it."""
    patch = folder / "patch"
    patch.mkdir(exist_ok=True)
    (patch / "sitecustomize.py").write_text(source, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(patch), os.environ.get("PYTHONPATH", "")]))}


class Run(Protocol):
    """Runs Snakemake on a study, as the function `run` does."""

    def __call__(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """Return the exit status and what was printed."""


@contextmanager
def fast_runs() -> Iterator[Run]:
    """Yield a function that runs Snakemake as `run` does, without importing libraries again for each job."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        scripts = ScriptServer(scratch)
        server = SnakemakeServer(scripts.interpreter)

        def run_fast(folder: Path, *arguments: str) -> tuple[int, str]:
            unlock(folder)
            scripts.start()
            command = [*arguments, "--snakefile", str(REPOSITORY / "Snakefile"), *OPTIONS]
            status = server.run(command, folder, scratch / "printed", int(LIMIT_S))
            return status, "".join((scratch / f"printed.{name}").read_text(encoding="utf-8") for name in ("out", "err"))

        try:
            yield run_fast
        finally:
            server.close()
            scripts.close()


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
    """Return the SHA-256 of every table of a study, without the measured times and memory of fine-tuning."""
    found = hashes(folder, "consolidated/**/*")
    if RECOVERED in found:
        table = pd.read_parquet(folder / RESULTS / RECOVERED).drop(columns=["seconds", "peak_memory_bytes"])
        found[RECOVERED] = hashlib.sha256(table.to_csv().encode()).hexdigest()
    return found
