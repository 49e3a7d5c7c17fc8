"""Whether the user asked only for files: then a job does no other work than its own.

A target such as `all` needs the whole study sooner or later, so a job may do the work of others. Somebody who asks for
one table wants only this table.
"""

from __future__ import annotations

import os

ONLY_FILES = "ESPALIER_ONLY_FILES"
"""Environment variable that the driver sets, and that jobs inherit."""


def pieces_per_job(configured: int) -> int:
    """Return the number of pieces of work that a job may do: as configured, or 1 if the user asked only for files."""
    return 1 if ONLY_FILES in os.environ else configured
