"""Summary of timed runs: medians, ranges, and whether a version is faster than another. Imports no torch.

Speeds are compared as ratios. A ratio divides the speeds of two versions in the same repeat, because both then ran
under the same conditions. The median ratio gets a distribution-free confidence interval from the order statistics of
the n ratios. The interval from the k-th lowest to the k-th highest ratio covers the median with probability

    1 - 2 * sum_{i<k} C(n, i) / 2^n

The largest k with a coverage of at least 95% is used. The outcome is `gain` if the whole interval is above 1, `loss` if
it is below 1, and `not_told` otherwise. With fewer than 6 ratios no interval reaches 95%. The interval is then the
range, and the outcome is `not_told`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

UNPRUNED, PRUNED, PADDED = "unpruned", "pruned", "padded"
MIN_COVERAGE = 0.95
PAIRS = ((PRUNED, UNPRUNED), (PADDED, UNPRUNED), (PADDED, PRUNED))
SPEEDS = ("prefill_tokens_per_s", "decode_tokens_per_s")


@dataclass(frozen=True)
class Workload:
    """Workload of a measurement.

    Attributes:
        batch_sizes: Batch sizes to measure.
        prompt_tokens: Tokens per prompt.
        new_tokens: Tokens to generate per prompt. The prefill produces the first of them.
        repeats: Timed runs per version and batch size.
    """

    batch_sizes: Sequence[int]
    prompt_tokens: int
    new_tokens: int
    repeats: int

    @property
    def cached_tokens(self) -> int:
        """Tokens per sequence in the KV cache at the end. The last generated token is not cached."""
        return self.prompt_tokens + self.new_tokens - 1


@dataclass(frozen=True)
class TimedRun:
    """One timed generation.

    Attributes:
        batch_size: Sequences per batch.
        repeat: Index of the repeat, from 0.
        version: Name of the version: `unpruned`, `pruned` or `padded`.
        prefill_s: Time to process the prompts and produce the first token of each.
        decode_s: Time to generate the remaining tokens.
        cache_bytes: Size of the tensors in the KV cache at the end.
        beyond_weights_bytes: Peak memory allocated during the run in addition to the memory allocated before it,
            summed over the GPUs; None on a CPU.
    """

    batch_size: int
    repeat: int
    version: str
    prefill_s: float
    decode_s: float
    cache_bytes: int
    beyond_weights_bytes: int | None


@dataclass(frozen=True)
class Gain:
    """Comparison of the speeds of two versions.

    Attributes:
        ratio: Median of the speed ratios of the repeats.
        interval: Confidence interval of the median ratio.
        level: Coverage of the interval.
        outcome: `gain`, `loss` or `not_told`.
    """

    ratio: float
    interval: tuple[float, float]
    level: float
    outcome: Literal["gain", "loss", "not_told"]


def summarise_runs(runs: Sequence[TimedRun], versions: Sequence[str], workload: Workload) -> list[dict[str, Any]]:
    """Summarise runs by batch size, as JSON values.

    Args:
        runs: Timed runs.
        versions: Names of the versions, in the order of the output.
        workload: Workload of the runs.

    Returns:
        One mapping per batch size, with three keys. `batch_size`. `versions`: for each version
        `prefill_tokens_per_s`, `decode_tokens_per_s` and `time_to_first_token_s` (each with `median`, `min` and
        `max`), `cache_bytes` and `beyond_weights_bytes` (the maximum over the runs). `gains`: for each pair of
        versions (`of`, `to`) and each `speed` the fields of `Gain`.
    """
    batches = []
    for batch_size in dict.fromkeys(run.batch_size for run in runs):
        by_version = {name: _runs_of_version(runs, batch_size, name) for name in versions}
        values = {name: _measurements(of_version, workload) for name, of_version in by_version.items()}
        batches.append(
            {
                "batch_size": batch_size,
                "versions": {name: _version_summary(by_version[name], values[name]) for name in versions},
                "gains": [
                    {
                        "of": version,
                        "to": reference,
                        "speed": speed,
                        **asdict(speed_gain(values[version][speed], values[reference][speed])),
                    }
                    for version, reference in PAIRS
                    if version in values and reference in values
                    for speed in SPEEDS
                ],
            }
        )
    return batches


def speed_gain(version: Sequence[float], reference: Sequence[float]) -> Gain:
    """Compare the speeds of two versions repeat by repeat.

    Args:
        version: Speeds of a version, in the order of the repeats.
        reference: Speeds of the version that it is compared with, in the same order.
    """
    ratios = sorted(speed / other for speed, other in zip(version, reference, strict=True))
    rank, level = _interval_rank(len(ratios))
    low, high = ratios[rank - 1], ratios[-rank]
    certain = level >= MIN_COVERAGE
    outcome: Literal["gain", "loss", "not_told"] = "not_told"
    if certain and low > 1:
        outcome = "gain"
    elif certain and high < 1:
        outcome = "loss"
    return Gain(median(ratios), (low, high), level, outcome)


def _interval_rank(n: int) -> tuple[int, float]:
    """Return the rank k (from 1) of the order statistics that bound the interval, and its coverage."""
    rank = 1
    while rank + 1 <= (n + 1) // 2 and _coverage(n, rank + 1) >= MIN_COVERAGE:
        rank += 1
    return rank, _coverage(n, rank)


def _coverage(n: int, rank: int) -> float:
    return float(1 - 2 * sum(math.comb(n, below) for below in range(rank)) / 2**n)


def _runs_of_version(runs: Sequence[TimedRun], batch_size: int, version: str) -> list[TimedRun]:
    """Return the runs of a version at a batch size, in the order of the repeats."""
    found = (run for run in runs if run.batch_size == batch_size and run.version == version)
    return sorted(found, key=lambda run: run.repeat)


def _measurements(runs: Sequence[TimedRun], workload: Workload) -> dict[str, list[float]]:
    prompt_tokens, decoded_tokens = workload.prompt_tokens, workload.new_tokens - 1
    return {
        "prefill_tokens_per_s": [run.batch_size * prompt_tokens / run.prefill_s for run in runs],
        "decode_tokens_per_s": [run.batch_size * decoded_tokens / run.decode_s for run in runs],
        "time_to_first_token_s": [run.prefill_s for run in runs],
    }


def _version_summary(runs: Sequence[TimedRun], measurements: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    peaks = [run.beyond_weights_bytes for run in runs if run.beyond_weights_bytes is not None]
    return {
        **{
            name: {"median": median(values), "min": min(values), "max": max(values)}
            for name, values in measurements.items()
        },
        "cache_bytes": max(run.cache_bytes for run in runs),
        "beyond_weights_bytes": max(peaks, default=None),
    }
