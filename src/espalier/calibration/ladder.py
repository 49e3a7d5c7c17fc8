"""The ladder of sample counts at which one gradient pass takes snapshots: 1, 2, 4, ... and the configured counts.

A pass is described by its largest count and by the configured counts that are not powers of two, so that a new count
on the ladder costs no pass.
"""

from __future__ import annotations

from collections.abc import Iterable


def off_ladder(counts: Iterable[int]) -> list[int]:
    """Return the counts that are not powers of two, except the largest, in order."""
    counts = sorted(set(counts))
    return [count for count in counts[:-1] if count & (count - 1)]


def ladder(largest: int, extra: Iterable[int] = ()) -> list[int]:
    """Return all snapshot counts in order: powers of two up to the largest, the extra ones, and the largest."""
    powers = {1 << i for i in range(largest.bit_length()) if 1 << i <= largest}
    return sorted(powers | set(extra) | {largest})


def prior_samples(n_samples: int, configured: int | None = None) -> int:
    """Return the number of sequences that priors of an n-sample setting are measured on.

    max(1, ceil(n / 5)) unless configured, and then at most n.
    """
    return max(1, -(-n_samples // 5)) if configured is None else min(configured, n_samples)
