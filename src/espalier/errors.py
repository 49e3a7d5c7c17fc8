"""The exception whose message is meant for the user, and errors of any library that mean that host memory ran out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_TEXTS = (
    "cannot allocate memory", "can't allocate memory", "failed to map segment", "bad_alloc", "bad allocation",
    "can't start new thread", "launch worker thread", "not enough memory", "memory allocation of",
)  # fmt: skip
"""How libraries say it, in lower case. GPU memory is another matter: `torch.OutOfMemoryError` has none of these."""
LONGEST_DETAIL = 150


def out_of_memory(error: BaseException | None) -> str | None:
    """Return what was said about missing host memory by an error or the errors that it was raised for; else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = " ".join(str(error).split())
        no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if isinstance(error, MemoryError) or no_memory or any(one in text.lower() for one in _TEXTS):
            detail = ": ".join(filter(None, [type(error).__name__, text]))
            return detail if len(detail) <= LONGEST_DETAIL else f"{detail[:LONGEST_DETAIL]}..."
        error = error.__cause__ or error.__context__
    return None


def memory_line(detail: str, rule: str | None = None) -> str:
    """Return the line for the user.

    Args:
        detail: Result of `out_of_memory`.
        rule: Name of the rule, to name the setting of a cluster job.
    """
    cluster = f", or `--set-resources {rule}:mem_mb=...` on a cluster" if rule else ""
    return (
        f"out of memory ({detail}); give the job more (ulimit, cgroup or container{cluster}) or close other programs, "
        "and run again"
    )


def no_permission(error: BaseException) -> str | None:
    """Return one line about a path that may not be written or read, with the remedy; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return None
    if not isinstance(error.filename, str | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    if os.path.lexists(path) and not os.access(path, os.R_OK):
        return f"{path}: cannot be read ({error.strerror}); make it readable (`chmod u+r`) and run again"
    # A temporary file in a read-only folder has a name that says nothing to the user.
    closed = [one for one in (path.parent, path, *path.parents) if os.path.lexists(one) and not os.access(one, os.W_OK)]
    return (
        f"{closed[0] if closed else path}: cannot be written ({error.strerror}); make it writable (`chmod u+w`) and "
        "run again"
    )


class UserError(Exception):
    """A problem that the user can fix.

    The message has one line per problem: what was given, what is allowed, what to do. Jobs and the Snakefile print
    it without a traceback.
    """
