"""The driver's patches of Snakemake's scheduler."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import ResourceList
from snakemake.jobs import Job
from snakemake.scheduling.job_scheduler import JobScheduler

from espalier.study.scheduler import HANDOVER_PARTITION, SETS_A_TIMER, limit_scheduler_timers, renew_resources


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


class FakeJob(Job):
    """A job of Snakemake of which only the resources exist. `values` are those that the rule gives at the moment."""

    def __init__(self, name: str, **values: int | str) -> None:
        self.rule = SimpleNamespace(resources=dict(values), script=f"../workflow/scripts/{name}.py")
        self.values: dict[str, Any] = dict(values)
        self.n_lookups = 0
        self._resources = self._scheduler_resources = self._params = None
        self._params_and_resources_resetted = False

    @property
    def wildcards(self) -> SimpleNamespace:
        return SimpleNamespace(model="A")

    @property
    def resources(self) -> ResourceList:
        if self._resources is None:
            self.n_lookups += 1
            self._resources = ResourceList(fromdict=dict(self.values))
        return self._resources


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """The (rule, model) of stored results, with Snakemake patched to look for them."""
    found: set[tuple[str, str]] = set()
    monkeypatch.setattr(Job, "reset_params_and_resources", Job.reset_params_and_resources)  # restored after the test
    renew_resources("model_jobs", lambda rule, wildcards: (rule, wildcards.model) in found)
    return found


def test_resources_of_a_waiting_job_are_looked_up_again_when_its_result_is_stored(stored: set[tuple[str, str]]) -> None:
    job, other = FakeJob("evaluate", model_jobs=1, gpu=1), FakeJob("recover", gpu=1)
    for _ in range(3):
        job.reset_params_and_resources()
        other.reset_params_and_resources()
    assert (job.resources["gpu"], other.resources["gpu"]) == (1, 1)
    assert job.n_lookups == 1
    stored |= {("evaluate", "A"), ("recover", "A")}
    for each in (job, other):
        each.values |= {"gpu": 0, "model_jobs": 0}
        for _ in range(3):
            each.reset_params_and_resources()
    assert (job.resources["gpu"], other.resources["gpu"]) == (0, 1)
    assert job.n_lookups == 2


@pytest.mark.usefixtures("stored")
def test_a_job_that_only_hands_over_goes_to_its_own_partition() -> None:
    partitions = {HANDOVER_PARTITION: "cpu", "slurm_partition": "gpu"}
    for model_jobs, partition in ((1, "gpu"), (0, "cpu")):
        job = FakeJob("evaluate", model_jobs=model_jobs, **partitions)
        job.reset_params_and_resources()
        assert job.resources.slurm_partition == partition
    local = FakeJob("evaluate", model_jobs=0)  # the profile of one machine names no partition
    local.reset_params_and_resources()
    assert "slurm_partition" not in dict(local.resources.items())
