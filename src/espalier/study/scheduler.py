"""Changes to Snakemake's scheduler: how often it wakes up, and when it looks up the resources of jobs.

While jobs wait, each round of the scheduler starts a timer for the next round, and so does each job that ends. After n
jobs, the scheduler runs n rounds a second. In a study with hundreds of jobs, this keeps a whole core busy as long as
any job runs (Snakemake 9.27.1). The timers are meant to start one round a second.

Snakemake looks up the resources of a job once, when the job becomes ready. The jobs of one model become ready together,
and then the first of them does the work of the others (`espalier.study.handover`). What the others need is only known
after that, so the resources of a job are looked up again when its result has been stored.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

MODEL_JOBS = "model_jobs"
"""Resource that counts the jobs that run a model: 1, or 0 for a job that only hands over a result."""
HANDOVER_PARTITION = "handover_partition"
"""Resource of the Slurm profile: partition of jobs that only hand over a result."""
SETS_A_TIMER = "_schedule_reevalutation"
"""Name of the `JobScheduler` method that starts a timer. The spelling error is Snakemake's."""


def limit_scheduler_timers() -> None:
    """Allow one timer at a time for each delay in this process. Call this while the Snakefile is read."""
    try:
        scheduler = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
    except (ImportError, AttributeError):  # another version of Snakemake, which may not need this
        return
    if not hasattr(scheduler, SETS_A_TIMER):
        return

    def schedule(self: Any, delay: float) -> None:
        waiting: set[float] = self.__dict__.setdefault("_espalier_delays", set())
        if delay in waiting:
            return
        waiting.add(delay)

        def wake_up() -> None:
            waiting.discard(delay)
            self._open_jobs.release()

        timer = threading.Timer(delay, wake_up)
        timer.daemon = True
        timer.start()

    setattr(scheduler, SETS_A_TIMER, schedule)


def renew_resources(resource: str, is_stored: Callable[[str, Any], bool]) -> None:
    """Look up the resources of a waiting job again when its result has been stored, for rules with this resource.

    The resource is 0 for a job that only hands over a result. Such a job goes to the Slurm partition that the profile
    names as `HANDOVER_PARTITION`, because the one of its rule is for GPUs.

    Call this while the Snakefile is read. With another version of Snakemake that works in another way, jobs keep the
    resources that they had when they became ready, which may be more than they need.

    Args:
        resource: Name of the resource.
        is_stored: Returns whether the result of a job is in the store, given the name of its rule and its wildcards. It
            is called for every waiting job in each round, so it must be fast.
    """
    try:
        job_class = importlib.import_module("snakemake.jobs").Job
        own = job_class.reset_params_and_resources
    except (ImportError, AttributeError):
        return

    def reset_params_and_resources(self: Any) -> None:
        own(self)
        if resource not in self.rule.resources:
            return
        # `rule.name` has a prefix if the workflow is imported as a module; the script of a rule has its plain name.
        if self.resources.get(resource) and is_stored(PurePath(str(self.rule.script)).stem, self.wildcards):
            self._resources = self._scheduler_resources = None
        resources = self.resources
        partition = resources.get(HANDOVER_PARTITION)
        if resources.get(resource) == 0 and partition and resources.get("slurm_partition") != partition:
            self._resources = type(resources)(fromdict={**dict(resources.items()), "slurm_partition": partition})

    job_class.reset_params_and_resources = reset_params_and_resources
