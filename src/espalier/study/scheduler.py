"""Changes to Snakemake's scheduler: how often it wakes up, and when it looks up the resources of jobs.

While jobs wait, each round of the scheduler starts a timer for the next round, and so does each job that ends. After n
jobs, the scheduler runs n rounds a second. In a study with hundreds of jobs, this keeps a whole core busy as long as
any job runs (Snakemake 9.27.1). The timers are meant to start one round a second.

Snakemake looks up the resources of a job once, when the job becomes ready. The jobs of one model become ready together,
and then the first of them does the work of the others (`espalier.study.handover`). What the others need is only known
after that, so their resources are looked up again in each round.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

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


def renew_resources(resource: str) -> None:
    """Look up the resources of waiting jobs in each round, for rules with this resource.

    If the resource is 0, the job only hands over a result. It then goes to the Slurm partition that the profile names
    as `HANDOVER_PARTITION`, because the one of its rule is for GPUs.

    Call this while the Snakefile is read. With another version of Snakemake that works in another way, jobs keep the
    resources that they had when they became ready, which may be more than they need.
    """
    try:
        job_class = importlib.import_module("snakemake.jobs").Job
        own = job_class.reset_params_and_resources
    except (ImportError, AttributeError):
        return

    def reset_params_and_resources(self: Any) -> None:
        renews = resource in self.rule.resources
        if renews:
            self._resources = self._scheduler_resources = None
        own(self)
        if renews and self.resources.get(resource) == 0 and (partition := self.resources.get(HANDOVER_PARTITION)):
            changed = {**dict(self.resources.items()), "slurm_partition": partition}
            self._resources = type(self.resources)(fromdict=changed)

    job_class.reset_params_and_resources = reset_params_and_resources
