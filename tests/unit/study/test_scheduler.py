"""The driver's patch of Snakemake's scheduler."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from espalier.study.scheduler import SETS_A_TIMER, limit_scheduler_timers


class Timers(list[Callable[[], object]]):
    """A replacement for `threading.Timer` that records the functions instead of calling them later."""

    def __call__(self, _delay: float, function: Callable[[], object]) -> SimpleNamespace:
        self.append(function)
        return SimpleNamespace(start=lambda: None)

    def run(self) -> int:
        """Call all recorded functions; return how many there were."""
        ended = [self.pop() for _ in range(len(self))]
        for function in ended:
            function()
        return len(ended)


def test_one_timer_per_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the patch, every request sets a timer; with it, there is one timer at a time for each delay."""
    monkeypatch.setattr(JobScheduler, SETS_A_TIMER, getattr(JobScheduler, SETS_A_TIMER))  # restored after the test
    timers = Timers()
    monkeypatch.setattr(threading, "Timer", timers)
    scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0))

    def ask(*delays: float) -> int:
        for delay in delays:
            getattr(JobScheduler, SETS_A_TIMER)(scheduler, delay)
        return timers.run()

    assert ask(*[1] * 20) == 20
    limit_scheduler_timers()
    assert ask(*[1] * 20) == 1
    assert ask(1) == 1  # when a timer has ended, the next request sets a new one
    assert ask(1, 10, 1, 10) == 2  # each delay has its own timer
    assert scheduler._open_jobs._value == 20 + 1 + 1 + 2
