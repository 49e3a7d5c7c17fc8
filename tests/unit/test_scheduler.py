"""Snakemake's scheduler, as the driver changes it."""

import threading
import time
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from espalier.study.scheduler import look_once_per_delay


def test_many_requests_for_a_look_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged, each of them releases the semaphore, and each look asks for the next."""
    before = JobScheduler._schedule_reevalutation
    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", before)  # put back afterwards
    found = {}
    for name in ("before", "after"):
        scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0))
        for _ in range(20):
            JobScheduler._schedule_reevalutation(scheduler, 0.05)
        time.sleep(0.5)
        found[name] = scheduler._open_jobs._value
        JobScheduler._schedule_reevalutation(scheduler, 0.05)
        time.sleep(0.5)
        assert scheduler._open_jobs._value == found[name] + 1  # later ones count again
        look_once_per_delay()
    assert found == {"before": 20, "after": 1}
