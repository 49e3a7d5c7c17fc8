"""The last lines of a run: where the reports are, or which jobs failed."""

import logging
import os
from pathlib import Path

import pytest

from espalier.files import write_json
from espalier.study.failure_records import failure_file
from espalier.study.run_end import MOST, failed_since, show_failures, show_reports

RESULTS = "results/s"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)


def record(rule: str, *wildcards: str, folder: str = RESULTS) -> Path:
    path = failure_file(folder, rule, wildcards)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"rule": rule, "wildcards": list(wildcards), "reason": f"no {wildcards[-1]}", "log": "x"})
    return path


def test_failures_of_this_run_are_listed(caplog: pytest.LogCaptureFixture) -> None:
    old = record("plan", "A", "random-p20")
    os.utime(old, (1, 1))
    record("evaluate", "failures", "x-1.5")
    record("stage_model", "o--a@main", folder="cache")
    assert failed_since(RESULTS, 2) == [
        "  stage_model o--a@main: no o--a@main",
        "  evaluate failures x-1.5: no x-1.5",
    ]
    show_failures(RESULTS)
    assert "Failed jobs:\n  stage_model o--a@main: no o--a@main\n  evaluate failures" in caplog.text


def test_long_lists_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(MOST + 3):
        record("plan", "A", f"x{number:02}")
    show_failures(RESULTS)
    assert caplog.messages[-1].splitlines()[-1] == "  and 3 more"
    assert len(caplog.messages[-1].splitlines()) == MOST + 2


@pytest.mark.parametrize(("requested", "shown"), [((), True), (("all",), True), (("plans",), False)])
def test_the_index_is_named_after_a_run_that_made_it(
    requested: tuple[str, ...], shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    show_reports(RESULTS, requested)
    assert not caplog.messages
    index = Path(RESULTS, "reports/index.html")
    index.parent.mkdir(parents=True)
    index.touch()
    show_reports(RESULTS, requested)
    assert caplog.messages == ([f"Reports: {index}"] if shown else [])
