"""What the driver refuses before it reads a config."""

from pathlib import Path

import pytest

from espalier.study.driver import open_study


def test_a_config_that_runs_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("__use_yte__: true\nstudy: s\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"c\.yaml: has the key __use_yte__, so Snakemake runs Python code in it"):
        open_study({"study": "s"}, is_driver=True, config_files=[file])


MODEL = {"name": "A", "family": "Llama", "kind": "base"}


def test_a_path_that_is_too_long_is_one_line() -> None:
    config = {"study": "s", "models": [{**MODEL, "path": "/x" * 5000}]}
    with pytest.raises(SystemExit, match=r"models\[0\]\.path: got '(/x)+\.\.\.'; allowed: at most 4000 characters"):
        open_study(config, is_driver=True)


def test_a_study_named_like_a_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "README.md").touch()
    with pytest.raises(SystemExit, match=r"study: got 'README\.md', but results/README\.md is a file"):
        open_study({"study": "README.md", "models": [{**MODEL, "path": "m"}]}, is_driver=True)
