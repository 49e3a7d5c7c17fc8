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
from statistics import median
from typing import Any

LEVEL = 0.95
PAIRS = (("pruned", "unpruned"), ("padded", "unpruned"), ("padded", "pruned"))
SPEEDS = ("prefill_tokens_per_s", "decode_tokens_per_s")


def summarise(
    runs: Sequence[Mapping[str, Any]], versions: Sequence[str], *, prompt_tokens: int, new_tokens: int
) -> list[dict[str, Any]]:
    """Summarise runs by batch size.

    Args:
        runs: Runs (`espalier.serving.timing.Run` as plain values).
        versions: Names of the versions, in the order of the output.
        prompt_tokens: Tokens per prompt.
        new_tokens: Tokens generated per prompt.

    Returns:
        One mapping per batch size, with three keys. `batch_size`. `versions`: for each version
        `prefill_tokens_per_s`, `decode_tokens_per_s` and `time_to_first_token_s` (each with `median`, `min` and
        `max`), `cache_bytes` and `beyond_weights_bytes` (the maximum over the runs). `gains`: for each pair of
        versions (`of`, `to`) and each `speed` the fields of `gain`.
    """
    found = []
    for batch_size in dict.fromkeys(run["batch_size"] for run in runs):
        here = [run for run in runs if run["batch_size"] == batch_size]
        values = {name: _values(_of(here, name), batch_size, prompt_tokens, new_tokens) for name in versions}
        found.append(
            {
                "batch_size": batch_size,
                "versions": {name: _version(_of(here, name), one) for name, one in values.items()},
                "gains": [
                    {"of": ours, "to": theirs, "speed": speed, **gain(values[ours][speed], values[theirs][speed])}
                    for ours, theirs in PAIRS
                    if ours in values and theirs in values
                    for speed in SPEEDS
                ],
            }
        )
    return found


def gain(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Compare the speeds of two versions repeat by repeat.

    Args:
        ours: Speeds of a version, in the order of the repeats.
        theirs: Speeds of the other version, in the same order.

    Returns:
        `ratio` (the median of ours / theirs), its confidence `interval`, the `level` (coverage) of that interval, and
        the `outcome`: `gain`, `loss` or `not_told`.
    """
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    depth, level = _depth(len(ratios))
    low, high = ratios[depth - 1], ratios[-depth]
    certain = level >= LEVEL
    outcome = "gain" if certain and low > 1 else "loss" if certain and high < 1 else "not_told"
    return {"ratio": median(ratios), "interval": [low, high], "level": level, "outcome": outcome}


def _depth(n: int) -> tuple[int, float]:
    """Return the rank k (from 1) of the order statistics that bound the interval, and its coverage."""
    depth = 1
    while depth + 1 <= (n + 1) // 2 and _coverage(n, depth + 1) >= LEVEL:
        depth += 1
    return depth, _coverage(n, depth)


def _coverage(n: int, depth: int) -> float:
    return float(1 - 2 * sum(math.comb(n, below) for below in range(depth)) / 2**n)


def _of(runs: Sequence[Mapping[str, Any]], version: str) -> list[Mapping[str, Any]]:
    return sorted((run for run in runs if run["version"] == version), key=lambda run: run["repeat"])


def _values(
    runs: Sequence[Mapping[str, Any]], batch_size: int, prompt_tokens: int, new_tokens: int
) -> dict[str, list[float]]:
    return {
        "prefill_tokens_per_s": [batch_size * prompt_tokens / run["prefill_s"] for run in runs],
        "decode_tokens_per_s": [batch_size * (new_tokens - 1) / run["decode_s"] for run in runs],
        "time_to_first_token_s": [run["prefill_s"] for run in runs],
    }


def _version(runs: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    peaks = [run["beyond_weights_bytes"] for run in runs if run["beyond_weights_bytes"] is not None]
    return {
        **{name: {"median": median(one), "min": min(one), "max": max(one)} for name, one in values.items()},
        "cache_bytes": max(run["cache_bytes"] for run in runs),
        "beyond_weights_bytes": max(peaks, default=None),
    }
