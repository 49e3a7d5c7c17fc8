"""Confidence intervals of speed ratios, compared with scipy and with simulated ratios."""

import numpy as np
import pytest
from scipy.stats import binom

from espalier.serving.inference_summary import TimedRun, Workload, speed_gain, summarise_runs


@pytest.mark.parametrize("n", range(6, 60, 7))
def test_the_interval_is_that_of_the_sign_test(n: int) -> None:
    ratios = 2.0 ** np.arange(n)
    found = speed_gain(list(ratios), [1.0] * n)
    depth = int(np.log2(found.interval[0])) + 1
    assert np.log2(found.interval[1]) == n - depth
    assert found.level == pytest.approx(1 - 2 * binom.cdf(depth - 1, n, 0.5))
    assert found.level >= 0.95
    assert 1 - 2 * binom.cdf(depth, n, 0.5) < 0.95  # no shorter interval has this coverage


@pytest.mark.parametrize(
    ("speeds", "outcome"),
    [([1.1] * 6, "gain"), ([0.9] * 6, "loss"), ([1.1] * 5 + [0.99], "not_told"), ([1.0] * 6, "not_told")],
)
def test_outcomes(speeds: list[float], outcome: str) -> None:
    assert speed_gain(speeds, [1.0] * 6).outcome == outcome


def test_the_median_alone_tells_nothing() -> None:
    """A median above 1 is no gain if the interval contains 1."""
    found = speed_gain([1.5, 1.4, 1.3, 1.2, 0.8, 1.1, 0.9], [1.0] * 7)
    assert found.ratio == 1.2
    assert found.outcome == "not_told"


def test_few_repeats_tell_nothing_however_clear() -> None:
    """Five repeats have no 95% interval, so the outcome is `not_told` for any ratio."""
    found = speed_gain([2.0] * 5, [1.0] * 5)
    assert found.level == pytest.approx(1 - 2 / 32)
    assert found.outcome == "not_told"


def test_pairs_are_of_one_repeat() -> None:
    """Ratios are computed within a repeat, so a machine that gets slower with each repeat has no effect."""
    slower = [2.0**-n for n in range(8)]
    assert speed_gain([1.1 * speed for speed in slower], slower).interval == pytest.approx([1.1, 1.1])


def test_equal_speeds_are_called_different_in_at_most_a_twentieth() -> None:
    rng = np.random.default_rng(0)
    outcomes = [speed_gain(*rng.lognormal(sigma=0.1, size=(2, 9))).outcome for _ in range(2_000)]
    assert sum(outcome != "not_told" for outcome in outcomes) / 2_000 < 0.06


def run(version: str, repeat: int, prefill_s: float, decode_s: float, peak: int | None = None) -> TimedRun:
    return TimedRun(4, repeat, version, prefill_s, decode_s, cache_bytes=100, beyond_weights_bytes=peak)


def test_summary() -> None:
    runs = [run(name, n, 2.0 / speed, 1.0 / speed, 7 + n) for n in range(6)
            for name, speed in (("unpruned", 1.0 + n), ("pruned", 2.0 + 2 * n))]  # fmt: skip
    (batch,) = summarise_runs(
        runs[::-1], ["unpruned", "pruned"], Workload((4,), prompt_tokens=10, new_tokens=6, repeats=6)
    )
    assert list(batch["versions"]) == ["unpruned", "pruned"]  # in the given order, not in that of the runs
    unpruned = batch["versions"]["unpruned"]
    # Slowest repeat: 4 prompts of 10 tokens in 2 s; 4 times 5 further tokens in 1 s.
    assert unpruned["prefill_tokens_per_s"] == {"median": 70.0, "min": 20.0, "max": 120.0}
    assert unpruned["decode_tokens_per_s"]["min"] == 20.0
    assert unpruned["time_to_first_token_s"]["max"] == 2.0
    assert unpruned["beyond_weights_bytes"] == 12
    assert [(one["of"], one["to"], one["ratio"], one["outcome"]) for one in batch["gains"]] == [
        ("pruned", "unpruned", 2.0, "gain")
    ] * 2
