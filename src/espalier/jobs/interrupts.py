"""What a job prints if it is interrupted, or lacks memory, while it imports its libraries."""

import signal
import sys
from types import TracebackType

from espalier.errors import memory_line, out_of_memory

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a job after Ctrl-C."""


def end_quietly_when_interrupted() -> None:
    """Print one line, no traceback, if Ctrl-C or a lack of memory ends an import. Later, `job_log` does this."""
    sys.excepthook = _report_early_end


def _report_early_end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    elif detail := out_of_memory(error):
        sys.stderr.write(f"error: {memory_line(detail)}\n")
    else:
        sys.__excepthook__(kind, error, traceback)
