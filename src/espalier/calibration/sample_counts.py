"""Sample counts at which a gradient pass takes snapshots.

These are the powers of two (1, 2, 4, ...) and the configured counts. A pass is identified by its largest count
and by the configured counts that are not powers of two. Adding a power of two below the largest count to the config
therefore needs no new pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class SampleCounts:
    """Sample counts of a job on calibration text, as in the params of its rule.

    Attributes:
        largest: Largest sample count.
        extra: Smaller sample counts that are not powers of two.
        prior_samples: Configured number of sequences on which priors are measured. None means the default.
    """

    largest: int
    extra: Iterable[int] = ()
    prior_samples: int | None = None

    @property
    def snapshots(self) -> list[int]:
        """Sample counts of the results."""
        return snapshot_counts(self.largest, self.extra)


def counts_off_powers_of_two(counts: Iterable[int]) -> list[int]:
    """Return the counts that are not powers of two, without the largest count, in increasing order."""
    counts = sorted(set(counts))
    return [count for count in counts[:-1] if count & (count - 1)]


def snapshot_counts(largest: int, extra: Iterable[int] = ()) -> list[int]:
    """Return all snapshot counts in increasing order: powers of two up to `largest`, `extra` counts, and `largest`."""
    powers = {1 << i for i in range(largest.bit_length()) if 1 << i <= largest}
    return sorted(powers | set(extra) | {largest})


def n_prior_sequences(n_samples: int, configured: int | None = None) -> int:
    """Return the number of sequences on which priors of a setting with `n_samples` sequences are measured.

    The default is max(1, ceil(n_samples / 5)). A configured number is limited to `n_samples`.
    """
    return max(1, -(-n_samples // 5)) if configured is None else min(configured, n_samples)
