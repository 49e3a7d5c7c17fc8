"""Snakemake's scheduler, as the driver changes it."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from espalier.study.scheduler import SETS_A_TIMER, look_once_per_delay


class Timers(list[Callable[[], object]]):
    """Stands for `threading.Timer`: keeps what is to be called."""

    def __call__(self, _delay: float, function: Callable[[], object]) -> SimpleNamespace:
        self.append(function)
        return SimpleNamespace(start=lambda: None)

    def run(self) -> int:
        """Let all of them end; return how many there were."""
        ended = [self.pop() for _ in range(len(self))]
        for function in ended:
            function()
        return len(ended)


def test_many_requests_for_a_look_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged, each of them releases the semaphore, and each look asks for the next."""
    monkeypatch.setattr(JobScheduler, SETS_A_TIMER, getattr(JobScheduler, SETS_A_TIMER))  # put back afterwards
    timers = Timers()
    monkeypatch.setattr(threading, "Timer", timers)
    scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0))

    def ask(*delays: float) -> int:
        for delay in delays:
            getattr(JobScheduler, SETS_A_TIMER)(scheduler, delay)
        return timers.run()

    assert ask(*[1] * 20) == 20
    look_once_per_delay()
    assert ask(*[1] * 20) == 1
    assert ask(1) == 1  # after a look the next may be asked for
    assert ask(1, 10, 1, 10) == 2  # the shorter delay is not lost in the longer one
    assert scheduler._open_jobs._value == 20 + 1 + 1 + 2
