"""What the driver refuses before it reads a config."""

from pathlib import Path

import pytest

from espalier.study.driver import open_study


def test_a_config_that_runs_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("__use_yte__: true\nstudy: s\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"c\.yaml: has the key __use_yte__, so Snakemake runs Python code in it"):
        open_study({"study": "s"}, is_driver=True, config_files=[file])
