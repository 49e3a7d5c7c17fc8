"""The login node fetches, compute jobs read what lies in `cache/`: against a hub on loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier.files import read_json
from tests.conftest import REPOSITORY, Run
from tests.unit.conftest import save_random_model
from tests.unit.hub import COMMIT, LoopbackHub, serve


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
def test_only_staging_asks_the_hub(hub_study: LoopbackHub, snakemake: Run, tmp_path: Path) -> None:
    staged = snakemake("stage", "--configfile", "study.yaml", directory=tmp_path)
    assert staged.returncode == 0, staged.stderr
    lock = yaml.safe_load((tmp_path / "cache/lock.yaml").read_text(encoding="utf-8"))
    assert COMMIT in str(lock)
    n_asked = len(hub_study.asked)
    assert n_asked > 0
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


def test_a_compute_job_cannot_reach_a_hub(tmp_path: Path, snakemake: Run) -> None:
    """Whatever a library tries: the jobs of this workflow run with hubs switched off."""
    save_random_model(tmp_path / "model")
    (tmp_path / "study.yaml").write_text("study: s\nmodels: [{name: A, family: F, kind: base, path: model}]\n")
    (tmp_path / "Snakefile").write_text(
        f"""
module espalier:
    snakefile:
        "{REPOSITORY / "Snakefile"}"
    config:
        config


use rule * from espalier as espalier_*


rule ask:
    output:
        "asked.txt",
    shell:
        "echo $HF_HUB_OFFLINE $HF_DATASETS_OFFLINE > {{output}}"
"""
    )
    done = snakemake(
        "asked.txt", "--snakefile", "Snakefile", "--configfile", "study.yaml", "--allowed-rules", "ask", "--cores", "1",
        directory=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked.txt").read_text().split() == ["1", "1"]
