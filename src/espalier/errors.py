"""The exception whose message is meant for the user, and errors of any library that mean that host memory ran out."""

from __future__ import annotations

import errno

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


class UserError(Exception):
    """A problem that the user can fix.

    The message has one line per problem: what was given, what is allowed, what to do. Jobs and the Snakefile print
    it without a traceback.
    """
