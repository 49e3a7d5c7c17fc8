"""Progress of a whole run on the terminal: what has finished, what runs, and how much time is left.

Snakemake prints three lines for each job and counts jobs, although a plan takes half a second and a training minutes.
Here, one line every few seconds replaces these lines. It counts estimated time. Snakemake's log file keeps all lines.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TYPICAL_SECONDS: Mapping[str, float] = {
    "train_sandbox_model": 96, "train_sandbox_tokenizer": 2.3, "make_world": 1.9, "check_model": 6.0,
    "tokenize_requests": 5.7, "check_calibration": 3.8, "collect_gradients": 1.9, "measure_priors": 3.2, "plan": 0.5,
    "evaluate": 3.2, "evaluate_baseline": 0.2, "consolidate": 1.8, "consolidate_study": 1.6, "analyse": 2.0,
    "analyse_study": 1.4, "compare_structures": 0.7, "draw_model": 7.0, "draw_study": 3.3, "report_model": 1.6,
    "report_cross_model": 1.3, "report_index": 1.0,
}  # fmt: skip
"""Mean seconds of the jobs of a rule in the default study on two cores, of which only the ratios matter.

They were measured at commit 60ea626, those of figures and of the index when these rules were added."""
OTHER_RULES = 2.0
PSEUDO_JOBS = 2
"""A rule's mean time starts at the typical one, with the weight of this many jobs."""
INTERVAL_S = 5.0
_REPLACED = ("Select jobs to execute", "Execute ", "Finished jobid: ")


@dataclass
class RunProgress:
    """Times of the jobs of a run.

    Attributes:
        left: Number of jobs of each rule that have not ended yet.
        begin: When the run began (s, of the same clock as all times here).
        started: When each running job began, by its id.
        names: Rule of each job, and its name for the terminal, by its id.
        seconds: Times of the finished jobs of each rule.
        failed: Names of the failed jobs.
    """

    left: Counter[str]
    begin: float
    started: dict[int, float] = field(default_factory=dict)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: list[str] = field(default_factory=list)
    _shown: float = 0.0

    def start(self, job: int, rule: str, wildcards: Mapping[str, Any], now: float) -> None:
        """Record that a job began. Counts at the start of a run leave out the jobs that a checkpoint adds."""
        n_running = sum(self.names[other][0] == rule for other in self.started)
        self.left[rule] = max(self.left[rule], n_running + 1)
        self.started[job] = now
        self.names[job] = (rule, " ".join([rule, *map(str, wildcards.values())]))

    def end(self, job: int, now: float, *, failed: bool = False) -> bool:
        """Record that a job ended, and return True. A job that did not begin is ignored, such as a target."""
        if (began := self.started.pop(job, None)) is None:
            return False
        rule, name = self.names[job]
        self.left[rule] -= 1
        if failed:
            self.failed.append(name)
        else:
            self.seconds[rule].append(now - began)
        return True

    @property
    def n_ended(self) -> int:
        """Number of finished and failed jobs."""
        return sum(map(len, self.seconds.values())) + len(self.failed)

    def mean_seconds(self, rule: str) -> float:
        """Return the expected time of a job of a rule.

        It is the mean of the finished jobs and of `PSEUDO_JOBS` typical ones. A typical job is as much slower than in
        the default study as the finished jobs of all rules are.
        """
        typical = sum(len(times) * TYPICAL_SECONDS.get(name, OTHER_RULES) for name, times in self.seconds.items())
        measured = sum(map(sum, self.seconds.values()))
        expected = TYPICAL_SECONDS.get(rule, OTHER_RULES) * (measured / typical if typical else 1.0)
        times = self.seconds.get(rule, [])
        return (sum(times) + PSEUDO_JOBS * expected) / (len(times) + PSEUDO_JOBS)

    def estimate(self, now: float) -> tuple[float, float]:
        """Return the share of the work that is done, and the seconds left.

        The share never falls. The seconds left assume that as many jobs run at once as until now.
        """
        elapsed = {job: now - began for job, began in self.started.items()}
        done = sum(map(sum, self.seconds.values())) + sum(elapsed.values())
        left = sum(max(count, 0) * self.mean_seconds(rule) for rule, count in self.left.items())
        left -= sum(min(seconds, self.mean_seconds(self.names[job][0])) for job, seconds in elapsed.items())
        at_once = max(1.0, done / max(now - self.begin, 1e-9))
        self._shown = max(self._shown, done / (done + left) if done else 0.0)
        return self._shown, left / at_once

    def line(self, now: float) -> str:
        """Return the progress in one line."""
        share, seconds = self.estimate(now)
        total = self.n_ended + sum(self.left.values())
        running = [self.names[job][1] for job in self.started]
        parts = [f"{min(int(100 * share), 99 if seconds > 0 else 100):3d}%", f"{self.n_ended} of {total} jobs"]
        if total > self.n_ended:
            parts.append(f"about {format_duration(seconds)} left")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if running:
            more = f" and {len(running) - 2} more" if len(running) > 2 else ""
            parts.append(f"running: {', '.join(running[:2])}{more}")
        return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Format a time that is only known roughly: `40 s`, `12 min` or `2 h 10 min`."""
    if seconds < 60:
        return f"{max(10 * round(seconds / 10), 10)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class ProgressHandler(logging.Handler):
    """Follows Snakemake's events and shows the progress every few seconds.

    Args:
        show: Prints a line.
        targets: Rules that only collect files, so that their jobs do nothing.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, show: Callable[[str], None], targets: frozenset[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._show, self._targets, self._clock = show, targets, clock
        self._run: RunProgress | None = None
        self._last = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Follow an event. Unknown events and those of another version of Snakemake are ignored."""
        event = getattr(getattr(record, "event", None), "name", None)
        now = self._clock()
        if event == "RUN_INFO" and isinstance(stats := getattr(record, "stats", None), Mapping):
            counts = {rule: n for rule, n in stats.items() if rule not in {"total", *self._targets}}
            self._run, self._last = RunProgress(Counter(counts), now), now
        elif self._run is not None and event in {"JOB_INFO", "JOB_FINISHED", "JOB_ERROR"}:
            self._follow(self._run, event, record, now)

    def _follow(self, run: RunProgress, event: str, record: Any, now: float) -> None:
        if event == "JOB_INFO":
            if record.rule_name not in self._targets:
                run.start(record.jobid, record.rule_name, record.wildcards, now)
            return
        is_job = run.end(record.job_id if event == "JOB_FINISHED" else record.jobid, now, failed=event == "JOB_ERROR")
        if is_job and (now - self._last >= INTERVAL_S or not +run.left):
            self._last = now
            self._show(run.line(now))


def show_progress(targets: frozenset[str]) -> None:
    """Replace Snakemake's lines about single jobs by lines about the whole run. Call this while the Snakefile is read.

    Nothing changes if the user chose another log handler (`--logger`).

    Args:
        targets: Names of the rules that only collect files.
    """
    logger = logging.getLogger("snakemake.logging")
    terminals = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    for terminal in terminals:
        terminal.addFilter(lambda record: not _is_replaced(record))
    if terminals and not any(isinstance(handler, ProgressHandler) for handler in logger.handlers):
        logger.addHandler(ProgressHandler(logger.info, targets))


def _is_replaced(record: logging.LogRecord) -> bool:
    event = getattr(getattr(record, "event", None), "name", None)
    return event == "PROGRESS" or str(record.msg).startswith(_REPLACED)
