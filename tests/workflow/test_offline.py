"""The login node fetches, compute jobs read what lies in `cache/`: against a hub on loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from espalier.files import read_json, write_parquet
from tests.conftest import Run
from tests.unit.hub import COMMIT, LoopbackHub, serve

TASKS = {"piqa": {"commits": {"baber/piqa": COMMIT}, "files": {}}}


@pytest.fixture
def hub_study(tmp_path: Path, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """The tiny study, its model on a hub instead of in a folder."""
    (tmp_path / "model").rename(tmp_path / "hub")
    model = {"name": "A", "family": "Llama", "kind": "base", "hub": "owner/tiny"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study | {"models": [model]}), encoding="utf-8")
    with serve(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.mark.long
def test_only_staging_asks_the_hub(
    hub_study: LoopbackHub, snakemake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as a site may set it for all; staging asks all the same
    staged = snakemake("stage", "--configfile", "study.yaml", directory=tmp_path)
    assert staged.returncode == 0, staged.stderr
    lock = yaml.safe_load((tmp_path / "cache/lock.yaml").read_text(encoding="utf-8"))
    assert COMMIT in str(lock)
    n_asked = len(hub_study.asked)
    assert n_asked > 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # whatever the user's shell says
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    done = snakemake("evaluations", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(hub_study.asked) == n_asked
    assert read_json(tmp_path / "results/tiny/models/A.json")["commit"] == COMMIT


def test_a_wrong_checksum_stages_nothing(hub_study: LoopbackHub, snakemake: Run, tmp_path: Path) -> None:
    hub_study.wrong_checksums.add("model.safetensors")
    done = snakemake("stage", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode != 0
    assert "checksum" in done.stderr
    assert not (tmp_path / "cache/lock.yaml").exists()
    assert not list((tmp_path / "cache").rglob("staged.json"))
    hub_study.wrong_checksums.clear()
    done = snakemake("stage", "--configfile", "study.yaml", directory=tmp_path)
    assert done.returncode == 0, done.stderr


def test_texts_stay_at_the_commit_in_the_lock(
    study: dict[str, Any], snakemake: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever study stages which split of them, and whatever `main` has become."""
    for split in ("train", "test"):
        write_parquet(tmp_path / f"hub/data/{split}-00000-of-00001.parquet", pa.table({"text": [f"A {split} text."]}))
    lock = tmp_path / "cache/lock.yaml"

    def staged(hub: LoopbackHub, *arguments: str, **splits: str) -> dict[str, str]:
        """Stage the texts of a study, and return the commit of each split in the lock."""
        texts = [{"name": name, "dataset": "owner/tiny", "split": split} for name, split in splits.items()]
        study["evaluation"]["perplexity"]["texts"] = texts
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        done = snakemake("stage", "--configfile", "study.yaml", *arguments, directory=tmp_path)
        assert done.returncode == 0, done.stderr
        entries = yaml.safe_load(lock.read_text(encoding="utf-8"))["texts"].values()
        return {entry["split"]: entry["commit"] for entry in entries}

    with serve(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        assert staged(hub, plain="test") == {"test": COMMIT}
        hub.commit = COMMIT[::-1]
        assert staged(hub, other="train") == {"test": COMMIT, "train": COMMIT}
        shutil.rmtree(tmp_path / "cache/texts")
        hub.asked.clear()
        assert staged(hub, plain="test") == {"test": COMMIT, "train": COMMIT}
        assert hub.asked
        assert not any(path.endswith("/revision/main") for path in hub.asked)
        # To move on purpose, as docs/pipeline.md says: without its entries and what was staged. Others stay.
        entries = yaml.safe_load(lock.read_text(encoding="utf-8"))
        lock.write_text(yaml.safe_dump(entries | {"texts": {}, "tasks": TASKS}), encoding="utf-8")
        shutil.rmtree(tmp_path / "cache/texts")
        assert staged(hub, "--forcerun", "lock_cache", plain="test") == {"test": COMMIT[::-1]}
        assert yaml.safe_load(lock.read_text(encoding="utf-8"))["tasks"] == TASKS
