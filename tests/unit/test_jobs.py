"""What a job leaves behind when it fails, in a process of its own as workflow scripts are."""

import subprocess
import sys
from pathlib import Path

import pytest

from espalier.files import read_json
from espalier.jobs import failure_file
from tests.conftest import REPOSITORY

JOB = """
import sys
from espalier.errors import UserError
from espalier.jobs import failure_file, job_log
log = sys.argv[1]
with job_log(log, "plan A x", failure=failure_file(log)):
    {body}
"""


def run(tmp_path: Path, body: str) -> tuple[int, str, Path]:
    log = tmp_path / "results/s/logs/plan/A/x-p20.log"
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(body=body), str(log)],
        cwd=REPOSITORY / "src", capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr, log


def test_failures_lie_beside_logs() -> None:
    assert failure_file("results/s/logs/evaluate/A/x-p20.log") == Path("results/s/failures/A/x-p20.json")


@pytest.mark.parametrize(
    ("body", "reason", "line"),
    [
        ("raise UserError('too much; lower it')", "too much; lower it", "[plan A x] error: too much; lower it"),
        (
            "[][0]",
            "IndexError: list index out of range",
            "[plan A x] failed: IndexError: list index out of range (trac",
        ),
    ],
)
def test_a_failed_job_says_why_and_a_later_success_takes_it_back(
    tmp_path: Path, body: str, reason: str, line: str
) -> None:
    status, printed, log = run(tmp_path, body)
    assert status == 1
    assert line in printed
    assert "Traceback" not in printed
    assert read_json(failure_file(log)) == {"reason": reason, "log": str(log)}
    assert run(tmp_path, "pass")[0] == 0
    assert not failure_file(log).exists()


def test_an_interrupted_job_says_so_in_a_line_and_has_not_failed(tmp_path: Path) -> None:
    status, printed, log = run(tmp_path, "raise KeyboardInterrupt")
    assert (status, printed) == (130, "[plan A x] interrupted\n")
    assert not failure_file(log).exists()
