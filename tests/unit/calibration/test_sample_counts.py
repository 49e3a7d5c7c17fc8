"""The sample counts at which a pass takes snapshots, and the sample counts of priors."""

import pytest

from espalier.calibration.sample_counts import counts_off_powers_of_two, n_prior_sequences, snapshot_counts


@pytest.mark.parametrize(
    ("counts", "largest", "extra"),
    [([128, 256, 512], 512, []), ([32, 100, 128], 128, [100]), ([3], 3, []), ([1], 1, []), ([100, 3, 64], 100, [3])],
)
def test_snapshot_counts(counts: list[int], largest: int, extra: list[int]) -> None:
    assert counts_off_powers_of_two(counts) == extra
    steps = snapshot_counts(largest, extra)
    assert set(counts) <= set(steps)
    assert steps[-1] == largest
    assert steps == sorted({1 << i for i in range(20) if 1 << i <= largest} | set(extra) | {largest})


def test_prior_samples_are_a_fifth_rounded_up() -> None:
    assert [n_prior_sequences(n) for n in (1, 4, 5, 6, 128, 512)] == [1, 1, 1, 2, 26, 103]


def test_prior_samples_may_be_configured_but_stay_within_the_setting() -> None:
    assert [n_prior_sequences(n, 16) for n in (4, 16, 512)] == [4, 16, 16]
