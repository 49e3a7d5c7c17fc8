"""The progress of a whole run: estimates by hand, and the events that Snakemake logs."""

import logging
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.study.run_progress import ProgressHandler, RunProgress, format_duration, show_progress


def test_times_left() -> None:
    """Two jobs at once. Typical: plan 0.5 s, evaluate 3.2 s. The first evaluation took 6.4 s, twice the typical time.

    evaluate: (6.4 + 2 * 6.4) / 3 = 6.4 s each; plan: 2 * 0.5 = 1 s each. Left at t = 8: the running evaluation (6.4 s,
    of which 4 s have passed), one that waits, and 3 plans: 2.4 + 6.4 + 3 = 11.8 s of work. Done: 6.4 + 4 = 10.4 s in
    8 s, so 1.3 jobs at once.
    """
    run = RunProgress(Counter(evaluate=3, plan=3), begin=0.0)
    run.start(1, "evaluate", {"model": "A", "experiment": "x"}, 0.0)
    run.start(2, "evaluate", {"model": "A", "experiment": "y"}, 4.0)
    run.end(1, 6.4)
    assert run.mean_seconds("evaluate") == pytest.approx(6.4)
    assert run.mean_seconds("plan") == pytest.approx(1.0)
    share, seconds = run.estimate(8.0)
    assert share == pytest.approx(10.4 / 22.2)
    assert seconds == pytest.approx(11.8 / 1.3)
    assert run.line(8.0) == " 46%, 1 of 6 jobs, about 10 s left, running: evaluate A y"


def test_the_share_never_falls() -> None:
    run = RunProgress(Counter(evaluate=10), begin=0.0)
    run.start(1, "evaluate", {}, 0.0)
    run.end(1, 1.0)
    before, _ = run.estimate(1.0)
    run.start(2, "evaluate", {}, 1.0)
    run.end(2, 101.0)  # much slower than expected, so more work is left than it seemed
    after, _ = run.estimate(101.0)
    run.left["evaluate"] += 1000
    assert run.estimate(102.0)[0] >= after >= before


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "10 s"), (44, "40 s"), (90, "2 min"), (3540, "59 min"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def event(name: str, **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"event": SimpleNamespace(name=name), **fields})


def test_a_line_every_few_seconds() -> None:
    lines: list[str] = []
    clock = Clock()
    handler = ProgressHandler(lines.append, frozenset({"all"}), clock)
    handler.emit(event("JOB_FINISHED", job_id=7))  # before the run is known
    handler.emit(event("RUN_INFO", stats={"plan": 3, "all": 1, "total": 4}))
    for job in range(3):
        handler.emit(event("JOB_INFO", jobid=job, rule_name="plan", wildcards={"model": f"M{job}"}))
    for job, now in enumerate((1.0, 6.0, 7.0)):
        clock.now = now
        handler.emit(event("JOB_ERROR" if job == 2 else "JOB_FINISHED", job_id=job, jobid=job))
    handler.emit(event("JOB_FINISHED", job_id=9))  # the target
    assert len(lines) == 2
    assert lines[0].endswith("2 of 3 jobs, about 10 s left, running: plan M2")
    assert lines[1] == "100%, 3 of 3 jobs, 1 failed"


def test_jobs_after_a_checkpoint_are_counted() -> None:
    """Snakemake counts the jobs that a checkpoint adds only after it has run."""
    lines: list[str] = []
    clock = Clock()
    handler = ProgressHandler(lines.append, frozenset({"all"}), clock)
    handler.emit(event("RUN_INFO", stats={"choose": 1, "plan": 1, "total": 2}))
    for job, rule in enumerate(("plan", "choose", "recover", "recover")):
        handler.emit(event("JOB_INFO", jobid=job, rule_name=rule, wildcards={}))
        clock.now += 6.0
        handler.emit(event("JOB_FINISHED", job_id=job))
    assert [line.split(", about")[0].split("%, ")[1] for line in lines] == [
        "1 of 2 jobs", "2 of 2 jobs", "3 of 3 jobs", "4 of 4 jobs",
    ]  # fmt: skip


def test_lines_of_single_jobs_are_replaced() -> None:
    logger = logging.getLogger("snakemake.logging")
    terminal = logging.StreamHandler()
    terminal.name = "DefaultStreamHandler"
    before = list(logger.handlers)
    logger.handlers[:] = [terminal]
    try:
        show_progress(frozenset())
        show_progress(frozenset())  # a workflow with two modules
        assert [type(handler).__name__ for handler in logger.handlers] == ["StreamHandler", "ProgressHandler"]
        messages = ("Select jobs to execute...", "Finished jobid: 3 (Rule: plan)", "a warning")
        records = [event("PROGRESS", msg=None), *(logging.makeLogRecord({"msg": message}) for message in messages)]
        shown = [record for record in records if terminal.filter(record)]
        assert [record.msg for record in shown] == ["a warning"]
    finally:
        logger.handlers[:] = before
