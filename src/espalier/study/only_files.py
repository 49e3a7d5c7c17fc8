"""Whether the user asked only for files: then a job does no work that nobody asked for.

A target such as `all` needs the whole study sooner or later, so a job may do the work of others. Somebody who asks for
one table wants only this table. (Experiments that have a plan are evaluated in any case: the plans were asked for.)
"""

from __future__ import annotations

import os

ONLY_FILES = "ESPALIER_ONLY_FILES"
"""Environment variable that the driver sets, and that jobs inherit."""


def asked_only_for_files() -> bool:
    """Return whether the user asked only for files, and for no rule such as `all`."""
    return ONLY_FILES in os.environ
