"""How a job ends early: after Ctrl-C with one line, and where its workflow was told to stop after the work at hand."""

import os
import signal
import sys
from pathlib import Path
from types import TracebackType

from espalier.study.stopping import STOP_FILE

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a job that was interrupted."""


def end_quietly_when_interrupted() -> None:
    """Print one line, not a traceback, for Ctrl-C while libraries are imported; later `job_log` does."""
    sys.excepthook = _describe


def told_to_stop() -> bool:
    """Whether the workflow was told to stop: a job then ends after the piece of work that it is at."""
    return STOP_FILE in os.environ and Path(os.environ[STOP_FILE]).exists()


def _describe(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    else:
        sys.__excepthook__(kind, error, traceback)
