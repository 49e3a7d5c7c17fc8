"""Ctrl-C while a job still imports its libraries: one line, as later (`espalier.jobs.job_log`), and no traceback."""

import signal
import sys
from types import TracebackType

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a job that was interrupted."""


def end_quietly(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print one line for an interrupt, which ends the process all the same; leave other errors to Python."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = end_quietly
