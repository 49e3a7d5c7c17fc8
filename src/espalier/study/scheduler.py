"""Keep Snakemake's scheduler from waking ever more often.

While jobs wait, each look of the scheduler at them sets a timer for the next one, and so does each job that ends: after
n jobs it looks n times a second. In a study with hundreds of jobs that takes a whole core for as long as one of them
runs (Snakemake 9.27.1). One look a second is what the timers are for.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

SETS_A_TIMER = "_schedule_reevalutation"
"""The method of `JobScheduler` that does, in its spelling."""


def look_once_per_delay() -> None:
    """Let the scheduler of this process have one timer at a time; call it while the Snakefile is read."""
    try:
        scheduler = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
    except (ImportError, AttributeError):  # another version, which may not need it
        return
    if not hasattr(scheduler, SETS_A_TIMER):
        return

    def schedule(self: Any, delay: float) -> None:
        waiting: set[float] = self.__dict__.setdefault("_espalier_delays", set())
        if delay in waiting:
            return
        waiting.add(delay)

        def look() -> None:
            waiting.discard(delay)
            self._open_jobs.release()

        timer = threading.Timer(delay, look)
        timer.daemon = True
        timer.start()

    setattr(scheduler, SETS_A_TIMER, schedule)
