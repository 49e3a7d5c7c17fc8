"""The sample counts at which a pass takes snapshots, and the sample counts of priors."""

import pytest

from espalier.calibration.ladder import ladder, off_ladder, prior_samples


@pytest.mark.parametrize(
    ("counts", "largest", "extra"),
    [([128, 256, 512], 512, []), ([32, 100, 128], 128, [100]), ([3], 3, []), ([1], 1, []), ([100, 3, 64], 100, [3])],
)
def test_the_ladder(counts: list[int], largest: int, extra: list[int]) -> None:
    assert off_ladder(counts) == extra
    steps = ladder(largest, extra)
    assert set(counts) <= set(steps)
    assert steps[-1] == largest
    assert steps == sorted({1 << i for i in range(20) if 1 << i <= largest} | set(extra) | {largest})


def test_prior_samples_are_a_fifth_rounded_up() -> None:
    assert [prior_samples(n) for n in (1, 4, 5, 6, 128, 512)] == [1, 1, 1, 2, 26, 103]


def test_prior_samples_may_be_configured_but_stay_within_the_setting() -> None:
    assert [prior_samples(n, 16) for n in (4, 16, 512)] == [4, 16, 16]
