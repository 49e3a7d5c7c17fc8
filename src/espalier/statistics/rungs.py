"""Rungs of a race: shares of the token cost of the full grid, after each of which the race decides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

RUNGS = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Default rungs."""


def rungs_problem(rungs: Sequence[float]) -> str | None:
    """Return what is wrong with rungs, or None."""
    given = ", ".join(map(str, rungs))
    if any(not low < high for low, high in itertools.pairwise((0.0, *rungs))):
        return f"got {given}; each rung must be larger than the one before, and above 0"
    if not rungs or rungs[-1] != 1:
        return f"got {given or 'none'}; the last rung must be 1, which is all documents"
    return None
