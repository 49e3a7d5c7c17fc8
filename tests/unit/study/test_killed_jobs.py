"""A job that fails without a new failure record was killed: the driver reports and records it."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.study.failure_records import failure_file, read_failure
from espalier.study.killed_jobs import KILLED, KilledJobsHandler, report_killed_jobs
from espalier.study.stopping import STOP_FILE

RESULTS = "results/s"
JOB = {"jobid": 7, "rule_name": "espalier_plan", "wildcards": {"model": "A", "experiment": "x-p20"}}


DIED = """RuleException:
CalledProcessError in file "plan.smk", line 27:
Command 'set -euo pipefail;  python /s/tmpv6.plan.py' died with <Signals.SIGKILL: 9>."""


def event(name: str, **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"event": SimpleNamespace(name=name), **fields})


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STOP_FILE, raising=False)
    return []


def handler(lines: list[str], *, is_local: bool = True) -> KilledJobsHandler:
    return KilledJobsHandler(RESULTS, {"espalier_plan": "plan"}, lines.append, lambda: is_local)


def write_record(reason: str) -> None:
    file = failure_file(RESULTS, "plan", ("A", "x-p20"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'{{"reason": "{reason}"}}')


@pytest.mark.parametrize("earlier", [None, "of the attempt before"])
def test_a_killed_job_is_reported_and_recorded(lines: list[str], earlier: str | None) -> None:
    if earlier:
        write_record(earlier)
    follows = handler(lines)
    follows.emit(event("JOB_INFO", **JOB))
    follows.emit(event("ERROR", msg=DIED))
    follows.emit(event("JOB_ERROR", jobid=7, log=["results/s/logs/plan/A/x-p20.log (check log file(s))"]))
    assert lines == [f"[plan A x-p20] error: {KILLED}"]
    record = read_failure(failure_file(RESULTS, "plan", ("A", "x-p20")))
    assert record is not None
    assert record["reason"] == KILLED
    follows.emit(event("JOB_ERROR", jobid=7, log=[]))  # a job group reports its jobs twice
    assert len(lines) == 1


def test_a_job_that_recorded_its_reason_is_left_alone(lines: list[str]) -> None:
    follows = handler(lines)
    follows.emit(event("JOB_INFO", **JOB))
    write_record("too much; lower it")
    follows.emit(event("ERROR", msg=DIED))
    follows.emit(event("JOB_ERROR", jobid=7, log=[]))
    assert lines == []
    record = read_failure(failure_file(RESULTS, "plan", ("A", "x-p20")))
    assert record is not None
    assert record["reason"] == "too much; lower it"


def test_a_job_that_failed_itself_is_left_alone(lines: list[str]) -> None:
    """On a full disk it cannot record its reason."""
    follows = handler(lines)
    follows.emit(event("JOB_INFO", **JOB))
    follows.emit(event("ERROR", msg="Command 'python /s/tmpv6.plan.py' returned non-zero exit status 1."))
    follows.emit(event("JOB_ERROR", jobid=7, log=[]))
    assert lines == []


def test_interrupted_jobs_remote_jobs_and_rules_without_a_script_are_left_alone(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = handler(lines, is_local=False)
    remote.emit(event("JOB_INFO", **JOB))
    remote.emit(event("ERROR", msg=DIED))
    remote.emit(event("JOB_ERROR", jobid=7, log=[]))
    target = handler(lines)
    target.emit(event("JOB_INFO", **{**JOB, "rule_name": "all"}))
    target.emit(event("JOB_ERROR", jobid=7, log=[]))
    target.emit(event("JOB_ERROR", jobid=8, log=[]))
    target.emit(event("JOB_INFO", jobid=9))  # of another version of Snakemake
    stopped = handler(lines)
    stopped.emit(event("JOB_INFO", **JOB))
    stopped.emit(event("ERROR", msg=DIED))
    (tmp_path / "stop").touch()
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    stopped.emit(event("JOB_ERROR", jobid=7, log=[]))
    assert lines == []
    assert not failure_file(RESULTS, "plan", ("A", "x-p20")).exists()


def test_staging_has_its_records_in_the_cache(lines: list[str]) -> None:
    follows = KilledJobsHandler(RESULTS, {"stage_model": "stage_model"}, lines.append, lambda: True)
    follows.emit(event("JOB_INFO", jobid=1, rule_name="stage_model", wildcards={"hub_model": "x--y"}))
    follows.emit(event("ERROR", msg="Command 'python /s/tmp1.stage_model.py' returned non-zero exit status 137."))
    follows.emit(event("JOB_ERROR", jobid=1, log=[]))
    assert read_failure(failure_file("cache", "stage_model", ("x--y",))) is not None


def test_the_handler_is_added_once_for_each_study() -> None:
    logger = logging.getLogger("snakemake.logging")
    before = list(logger.handlers)
    rules = [SimpleNamespace(name="plan", script="../scripts/plan.py"), SimpleNamespace(name="all", script=None)]
    try:
        report_killed_jobs(RESULTS, rules, lambda: True)
        added = [one for one in logger.handlers if one not in before]
        assert [type(one) for one in added] == [KilledJobsHandler]
    finally:
        logger.handlers[:] = before
