"""A tiny study and the default one: each is run once, in `build/`, for all tests that need its results."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from filelock import FileLock

from espalier.files import sha256_of, write_parquet
from espalier.sandbox.corpora import make_lines, make_pages, make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from tests.conftest import HANG_S, REPOSITORY, Run
from tests.unit.conftest import random_model

DEFAULT_CONFIG = str(REPOSITORY / "config/config.yaml")


@dataclass(frozen=True)
class DefaultRun:
    """A finished run of the default study."""

    directory: Path
    results: Path


@pytest.fixture(scope="session")
def default_run(snakemake: Run, testrun_uid: str) -> DefaultRun:
    """Run the default study from nothing (about ten minutes), or bring an earlier test run up to date."""
    directory = REPOSITORY / "build/default-run"
    with run_once(directory, testrun_uid) as is_first:
        if is_first:
            done = snakemake(
                "--cores", "all", "--configfile", DEFAULT_CONFIG, directory=directory, timeout_s=2 * HANG_S
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return DefaultRun(directory, directory / "results/sandbox")


@pytest.fixture(scope="session")
def tiny_run(snakemake: Run, testrun_uid: str) -> Path:
    """Run the tiny study to its end, from nothing; return its folder, of which tests take copies."""
    directory = REPOSITORY / "build/tiny-run"
    with run_once(directory, testrun_uid) as is_first:
        if is_first:
            for path in (directory / name for name in ("results", ".snakemake", "model", "tasks")):
                shutil.rmtree(path, ignore_errors=True)
            (directory / "study.yaml").write_text(yaml.safe_dump(write_tiny_study(directory)), encoding="utf-8")
            inputs = [*directory.glob("*.parquet"), *(directory / "model").iterdir(), *directory.glob("tasks/*/*")]
            before = {path: sha256_of(path) for path in inputs}
            done = snakemake("--configfile", "study.yaml", directory=directory)
            assert done.returncode == 0, done.stderr[-4000:]
            assert {path: sha256_of(path) for path in inputs} == before, "a run changes nothing that it reads"
    return directory


@contextmanager
def run_once(directory: Path, testrun_uid: str) -> Iterator[bool]:
    """Let one of the processes of a test run do something in a folder; the others wait for it.

    Yields:
        Whether this one does it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    finished = directory / "finished.txt"
    with FileLock(directory / "running.lock"):
        is_first = not finished.is_file() or finished.read_text(encoding="utf-8") != testrun_uid
        yield is_first
        if is_first:
            finished.write_text(testrun_uid, encoding="utf-8")


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Any]:
    """The tiny study in `tmp_path`, before anything is computed."""
    return write_tiny_study(tmp_path)


@pytest.fixture
def planned_study(tiny_run: Path, tmp_path: Path) -> dict[str, Any]:
    """The tiny study in `tmp_path`, computed up to its plans and the unpruned model: no pruned model is evaluated."""
    return copy_planned(tiny_run, tmp_path)


def copy_planned(tiny_run: Path, folder: Path) -> dict[str, Any]:
    """Copy the finished tiny study without what follows its plans; return the study."""
    shutil.copytree(
        tiny_run, folder, dirs_exist_ok=True,
        ignore=lambda source, names: {
            name for name in names
            if name in {".store", "consolidated", "finished.txt", "log", "reports", "running.lock"}
            or (name in {"metrics.json", "samples.parquet"} and "/experiments/" in source)
        },
    )  # fmt: skip
    content: dict[str, Any] = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    return content


def write_tiny_study(folder: Path) -> dict[str, Any]:
    """Write local files (a random model, one task, one perplexity text, a calibration text); return the study."""
    world = make_world(0)
    pages = make_pages(world, "training", 60, 0)
    tokenizer = wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=False)
    random_model("llama", len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for split in splits("piqa"):
        documents = pa.Table.from_pylist(make_task_documents(world, "piqa", split, 6, 0))
        write_parquet(folder / f"tasks/piqa/{split}.parquet", documents)
    write_parquet(folder / "calibration.parquet", pa.table({"text": make_pages(world, "calibration", 40, 0)}))
    write_parquet(folder / "perplexity.parquet", pa.table({"text": make_lines(world, "perplexity", 20, 0)}))
    text = {"name": "plain", "dataset": "perplexity.parquet"}
    return {
        "study": "tiny",
        "models": [{"name": "A", "family": "Llama", "kind": "base", "path": "model"}],
        "methods": [{"name": "blockwise", "scope": "block"}, {"name": "random", "criterion": "random"}],
        "grid": {
            "methods": ["blockwise", "random"], "taylor_seq_len": [16], "taylor_num_samples": [3],
            "pruning_ratio": [0.2],
        },
        "calibration": {"dataset": "calibration.parquet"},
        "evaluation": {
            "tasks": ["piqa"], "data": "tasks", "device": "cpu", "experiments_per_job": 8,
            "perplexity": {"window": 64, "stride": 32, "texts": [text]},
        },
    }  # fmt: skip
