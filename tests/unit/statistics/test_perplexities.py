"""Paired interval of a perplexity ratio: a hand-worked case, and coverage in simulated texts."""

import math

import numpy as np
import pytest

from espalier.errors import UserError
from espalier.statistics.perplexities import PerplexityRatio, WindowLosses, paired_ratio
from espalier.statistics.validation import FloatArray, IntArray


def ratio_of(pruned: FloatArray, unpruned: FloatArray, tokens: IntArray) -> PerplexityRatio:
    return paired_ratio(WindowLosses(pruned, tokens), WindowLosses(unpruned, tokens))


def test_four_blocks_by_hand() -> None:
    # 16 windows of 10 tokens make blocks of sqrt(16) = 4; differences sum to 16 + 8 + 12 + 12 = 48 over 160 tokens
    unpruned = np.full(16, 20.0)
    found = ratio_of(unpruned + np.repeat([4, 2, 3, 3], 4), unpruned, np.full(16, 10))
    assert found.ratio == pytest.approx(math.exp(0.3))
    assert (found.n_windows, found.n_blocks) == (16, 4)
    # residuals of the blocks: 16 - 12, 8 - 12, 0, 0; squares sum to 32; se = sqrt(4 / 3 * 32) / 160; t(3): 3.182446
    half = 3.182446 * math.sqrt(128 / 3) / 160
    assert found.interval == pytest.approx((math.exp(0.3 - half), math.exp(0.3 + half)), rel=1e-6)


def test_what_is_hard_for_both_cancels() -> None:
    hard = np.random.default_rng(0).uniform(10, 1000, 60)
    found = ratio_of(hard + 5.0, hard, np.full(60, 50))
    assert found.interval == pytest.approx((math.exp(0.1), math.exp(0.1)))


def test_windows_that_depend_on_their_neighbours_are_covered() -> None:
    """With autocorrelated differences (0.6), at least 90% of the 95% intervals contain the true ratio."""
    draw = np.random.default_rng(1)
    n_windows, n_texts, tokens = 300, 400, 512
    hits = 0
    for _ in range(n_texts):
        noise = draw.normal(size=n_windows + 50)
        for i in range(1, len(noise)):
            noise[i] += 0.6 * noise[i - 1]
        difference = tokens * (0.2 + 0.05 * noise[50:])
        unpruned = draw.uniform(1000, 2000, n_windows)
        low, high = ratio_of(unpruned + difference, unpruned, np.full(n_windows, tokens)).interval or (0, 0)
        hits += low <= math.exp(0.2) <= high
    assert hits / n_texts >= 0.9


def test_few_windows_have_no_interval() -> None:
    found = ratio_of(np.ones(3), np.ones(3), np.ones(3, dtype=int))
    assert (found.ratio, found.interval) == (1.0, None)
    assert found.reason is not None
    assert found.reason.code == "too_few_windows"


def test_other_windows_are_refused() -> None:
    windows = WindowLosses(np.ones(3), np.full(3, 10))
    for other in (np.full(4, 10), np.array([10, 10, 9])):
        with pytest.raises(UserError, match="the two models were measured in different windows; evaluate both again"):
            paired_ratio(windows, WindowLosses(np.ones(len(other)), other))
    with pytest.raises(UserError, match="a window has no loss or no number of tokens"):
        paired_ratio(windows, WindowLosses(np.ones(2), windows.tokens))
    with pytest.raises(UserError, match="the loss of a window is not finite"):
        ratio_of(np.array([1.0, np.inf]), np.ones(2), np.ones(2, dtype=int))
