"""Jobs import the same Espalier as the Snakefile."""

import os
from pathlib import Path

import pytest

from espalier.study.job_sources import prefer_sources


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "{folder}"),
        ("", "{folder}"),
        ("/old/src:/other", "{folder}:/old/src:/other"),
        ("/old/src:{folder}", "{folder}:/old/src"),
        ("{folder}:/old/src", "{folder}:/old/src"),
    ],
)
def test_the_folder_comes_first_and_once(
    before: str | None, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before.format(folder=tmp_path))
    prefer_sources(str(tmp_path))
    assert os.environ["PYTHONPATH"] == after.format(folder=tmp_path)


def test_a_folder_that_does_not_exist_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/old/src")
    prefer_sources("github:espalier/espalier@v1/src")
    assert os.environ["PYTHONPATH"] == "/old/src"
