"""Where no Slurm may be started, the reason is said and nothing is touched."""

import os
from pathlib import Path

import pytest

from tests.slurm import cluster


def test_an_ordinary_user_is_told_that_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(cluster.UnavailableError, match="needs root"):
        cluster.ensure_installed()


def test_a_machine_of_a_cluster_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cluster, "SYSTEM_FOLDER", tmp_path)
    (tmp_path / "slurm.conf").touch()
    with pytest.raises(cluster.UnavailableError, match="holds a configuration already"):
        cluster.ensure_installed()
    assert (tmp_path / "slurm.conf").exists()


def test_links_of_tests_that_were_killed_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cluster, "SYSTEM_FOLDER", tmp_path)
    monkeypatch.setattr(cluster, "_missing", list)
    (tmp_path / "slurm.conf").symlink_to(tmp_path / f"{cluster.FOLDER_PREFIX}gone/slurm.conf")
    cluster.ensure_installed()
    assert not list(tmp_path.iterdir())
