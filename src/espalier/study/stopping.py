"""Tell jobs when the workflow is told to stop, so that none begins another piece of work.

At SIGTERM Snakemake starts no more jobs and waits for those that run, but it does not tell them; the same holds for a
SIGINT that Snakemake alone gets. So the driver names a file to its jobs, and makes it when such a signal comes. Jobs on
other machines see it, too, where they share the working directory. (After Ctrl-C on a terminal jobs get SIGINT
themselves and end at once.)
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

STOP_FILE = "ESPALIER_STOP_FILE"
"""Environment variable of jobs: a file that exists once the workflow was told to stop."""


def tell_jobs_when_stopped() -> None:
    """Prepare this process, the driver; call it while the Snakefile is read."""
    if threading.current_thread() is not threading.main_thread():
        return  # a program that uses Snakemake's API handles signals itself
    path = Path(f".snakemake/espalier-stop-{socket.gethostname()}-{os.getpid()}").absolute()
    os.environ[STOP_FILE] = str(path)
    atexit.register(path.unlink, missing_ok=True)

    def tell() -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def interrupted(number: int, frame: Any) -> None:
        tell()
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, interrupted)
    _before_sigterm(tell)


def _before_sigterm(tell: Any) -> None:
    """Snakemake sets its handler, a method, after it has read the Snakefile, so it is the method that is extended."""
    try:
        scheduler = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
        own = scheduler.exit_gracefully
    except (ImportError, AttributeError):  # another version: jobs go on as they would without us
        return

    def exit_gracefully(self: Any, *arguments: Any) -> None:
        tell()
        own(self, *arguments)

    scheduler.exit_gracefully = exit_gracefully
