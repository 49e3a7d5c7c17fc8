"""The last lines of a run: where the reports are, or which jobs failed."""

import logging
import os
import subprocess
from pathlib import Path

import pytest

from espalier.files import write_json
from espalier.study.failure_records import failure_file
from espalier.study.run_end import MOST, SUMMARY_FOLLOWS, failed_since, show_failures, show_reports
from tests.conftest import REPOSITORY

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


@pytest.mark.parametrize(
    ("requested", "rule", "says_so"),
    [
        (["partial_reports"], "check_calibration", True),
        (["x_partial_reports", "plans"], "evaluate", True),
        (["partial_reports"], "report_model", False),  # it would fail again
        (["evaluations"], "check_calibration", False),
        ([], "check_calibration", False),
    ],
)
def test_partial_reports_that_failed_for_a_stale_result_can_run_again(
    requested: list[str], rule: str, says_so: bool, caplog: pytest.LogCaptureFixture
) -> None:
    record("plan", "A", "x-1")
    record(rule, "A", "c4-s0")
    show_failures(RESULTS, requested)
    assert f"  {rule} A c4-s0: no c4-s0" in caplog.text
    last = caplog.messages[-1].splitlines()[-1]
    assert last.startswith("Run partial_reports again: it leaves out these results now") == says_so


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


@pytest.mark.parametrize("fails", [False, True])
def test_make_run_names_the_reports_once(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its summary names them at its end, also if a job failed."""
    shows = f'echo "snakemake $* {SUMMARY_FOLLOWS}=${SUMMARY_FOLLOWS}"'
    tools = {"snakemake": f'{shows}\n[ "$1" = partial_reports ] || exit {+fails}', "python": 'echo "python $*"'}
    (tmp_path / "bin").mkdir()
    for name, script in tools.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    command = ["make", f"--file={REPOSITORY / 'Makefile'}", "--old-file=done", "BIN=bin", "INSTALLED=done", "run"]
    # Without the variables of a `make` that runs the tests: with them, `make` prints the folder, too.
    environment = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails
    *runs, summary = done.stdout.splitlines()
    assert summary == "python -m espalier.reports.summary results/sandbox"
    assert len(runs) == 1 + fails
    assert all(line.endswith(f"{SUMMARY_FOLLOWS}=1") for line in runs)

    monkeypatch.setenv(SUMMARY_FOLLOWS, "1")
    Path(RESULTS, "reports").mkdir(parents=True)
    Path(RESULTS, "reports/index.html").touch()
    show_reports(RESULTS, ())
    assert not caplog.messages
