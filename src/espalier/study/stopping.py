"""Notify running jobs when the workflow gets a stop signal, so that they start no further work.

On SIGTERM, Snakemake starts no more jobs and waits for those that run, but it does not notify them. The same holds for
a SIGINT that only Snakemake receives. So the driver passes the name of a file to its jobs, and creates the file when
such a signal arrives. Jobs on other machines see the file if they share the working directory. After Ctrl-C on a
terminal, jobs receive SIGINT themselves and end at once.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

STOP_FILE = "ESPALIER_STOP_FILE"
"""Environment variable of jobs: path of a file that exists once the workflow has received a stop signal."""


def is_stopping() -> bool:
    """Return whether the workflow has received a stop signal. A job must then start no further work."""
    return STOP_FILE in os.environ and Path(os.environ[STOP_FILE]).exists()


def install_stop_handlers() -> None:
    """Install the signal handlers in the driver process. Call this while the Snakefile is read."""
    if threading.current_thread() is not threading.main_thread():
        return  # a program that uses Snakemake's API handles signals itself
    path = Path(f".snakemake/espalier-stop-{socket.gethostname()}-{os.getpid()}").absolute()
    os.environ[STOP_FILE] = str(path)
    atexit.register(path.unlink, missing_ok=True)

    def create_stop_file() -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def interrupted(number: int, frame: Any) -> None:
        create_stop_file()
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # do not replace an ignored SIGINT
        signal.signal(signal.SIGINT, interrupted)
    _before_sigterm(create_stop_file)


def hide_traceback_of_interrupt() -> None:
    """Print one line instead of a traceback if SIGINT ends Snakemake before it runs jobs. Then it handles SIGINT."""
    if sys.excepthook is not sys.__excepthook__:
        return  # a program that uses Snakemake's API has its own

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("Interrupted. Give the same command to go on.\n")
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = show


def _before_sigterm(create_stop_file: Any) -> None:
    """Call `create_stop_file` before Snakemake's own handler of SIGTERM.

    Snakemake sets its handler, a method, only after it has read the Snakefile. So the method itself is extended.
    """
    try:
        scheduler = importlib.import_module("snakemake.scheduling.job_scheduler").JobScheduler
        own = scheduler.exit_gracefully
    except (ImportError, AttributeError):  # another version of Snakemake: jobs are not notified
        return

    def exit_gracefully(self: Any, *arguments: Any) -> None:
        create_stop_file()
        own(self, *arguments)

    scheduler.exit_gracefully = exit_gracefully
