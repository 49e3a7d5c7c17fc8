"""An interrupt before Snakemake runs jobs prints one line."""

import os
import subprocess
import sys

import pytest

from espalier.study.stopping import hide_traceback_of_interrupt
from tests.conftest import REPOSITORY

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
START = "from espalier.study.stopping import hide_traceback_of_interrupt as hide\nhide()\n"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        ("KeyboardInterrupt", ["Interrupted. Give the same command to go on."]),
        ("ValueError('x')", ["Traceback (most recent call last):", "ValueError: x"]),
    ],
)
def test_only_an_interrupt_has_no_traceback(error: str, lines: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{START}raise {error}"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    found = done.stderr.splitlines()
    assert [found[0], found[-1]] == [lines[0], lines[-1]]
    assert len(found) == 1 or lines[0].startswith("Traceback")


def test_the_hook_of_a_program_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(sys, "excepthook", own)
    hide_traceback_of_interrupt()
    assert sys.excepthook is own
