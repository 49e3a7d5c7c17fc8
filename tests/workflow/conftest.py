"""A tiny study in a folder of its own, and the default one, run once in `build/default-run` and kept there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from filelock import FileLock

from espalier.files import write_parquet
from espalier.sandbox.corpora import make_lines, make_pages, make_task_documents
from espalier.sandbox.splits import splits
from espalier.sandbox.tokenizers import train_tokenizer, wrap
from espalier.sandbox.world import make_world
from tests.conftest import REPOSITORY, Run
from tests.unit.conftest import random_model

DEFAULT_CONFIG = str(REPOSITORY / "config/config.yaml")


@dataclass(frozen=True)
class DefaultRun:
    """A finished run of the default study."""

    directory: Path
    results: Path


@pytest.fixture(scope="session")
def default_run(snakemake: Run, testrun_uid: str) -> DefaultRun:
    """Run the default study from nothing (about five minutes), or bring an earlier test run up to date.

    One of the processes of a test run does it; the others wait for it.
    """
    directory = REPOSITORY / "build/default-run"
    directory.mkdir(parents=True, exist_ok=True)
    finished = directory / "finished.txt"
    with FileLock(directory / "running.lock"):
        if not finished.is_file() or finished.read_text(encoding="utf-8") != testrun_uid:
            done = snakemake("--configfile", DEFAULT_CONFIG, directory=directory)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            finished.write_text(testrun_uid, encoding="utf-8")
    return DefaultRun(directory, directory / "results/sandbox")


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Any]:
    """A study of one random model on local files: one task, one perplexity text, one calibration text."""
    world = make_world(0)
    pages = make_pages(world, "training", 60, 0)
    tokenizer = wrap(train_tokenizer("llama", pages, 400), model_max_length=128, chat=False)
    random_model("llama", len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split in splits("piqa"):
        documents = pa.Table.from_pylist(make_task_documents(world, "piqa", split, 6, 0))
        write_parquet(tmp_path / f"tasks/piqa/{split}.parquet", documents)
    write_parquet(tmp_path / "calibration.parquet", pa.table({"text": make_pages(world, "calibration", 40, 0)}))
    write_parquet(tmp_path / "perplexity.parquet", pa.table({"text": make_lines(world, "perplexity", 20, 0)}))
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
            "tasks": ["piqa"], "data": "tasks", "device": "cpu",
            "perplexity": {"window": 64, "stride": 32, "texts": [text]},
        },
    }  # fmt: skip
