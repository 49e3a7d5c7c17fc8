"""Interval of a perplexity ratio from the summed losses of both models in the same windows of one text.

Both models score the same tokens, so what makes a window hard for both cancels. With L_w and U_w the summed losses
(nats) of the pruned and the unpruned model in window w, and n_w its scored tokens:

    d_w = L_w - U_w;   r = sum d_w / sum n_w;   ratio of perplexities = exp(r)

Neighbouring windows are about the same things, so they are not independent. They are joined to blocks of
b = ceil(sqrt(W)) windows in a row, as for batch means (Jones et al., Fixed-width output analysis for Markov chain Monte
Carlo, 2006), B blocks in all, with sums d_k and n_k. Standard error of the ratio of sums r (Cochran, Sampling
Techniques, 1977, section 6.4), and interval:

    se = sqrt(B / (B - 1) * sum_k (d_k - r n_k)**2) / sum n_k;   exp(r -+ t(B - 1) * se)

The interval speaks of text like this one; it says nothing of other texts, and nothing of calibration seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from espalier.errors import UserError
from espalier.statistics.bootstrap import LEVEL
from espalier.statistics.checks import FloatArray, IntArray
from espalier.statistics.messages import Message

FEWEST_BLOCKS = 4
NO_WINDOWS = Message("no_windows")
"""Why a ratio of results without windows (version 0.1.0, imported ones) has no interval."""


@dataclass(frozen=True)
class PerplexityRatio:
    """Ratio of two perplexities on one text.

    Attributes:
        ratio: Perplexity of the pruned model divided by that of the unpruned one.
        interval: Its lower and upper end; None where there are too few windows.
        n_windows: Windows of the text.
        n_blocks: Blocks of windows that the interval rests on.
        reason: Why there is no interval, where there is none.
    """

    ratio: float
    interval: tuple[float, float] | None
    n_windows: int
    n_blocks: int
    reason: Message | None


def paired_ratio(
    losses: FloatArray, unpruned: FloatArray, tokens: IntArray, *, level: float = LEVEL
) -> PerplexityRatio:
    """Compare the losses of two models in the same windows.

    Args:
        losses: Summed loss of each window by the pruned model (nats): (windows,).
        unpruned: The same by the unpruned model.
        tokens: Scored tokens of each window: (windows,).
        level: Coverage of the interval.

    Raises:
        UserError: If the models were not measured in the same windows, or a loss is not finite.
    """
    if not len(losses) == len(unpruned) == len(tokens) or not len(losses):
        raise UserError("perplexity: the two models were measured in different windows; evaluate both again")
    if not (np.isfinite(losses).all() and np.isfinite(unpruned).all()):
        raise UserError("perplexity: the loss of a window is not finite; evaluate again in float32 (evaluation.dtype)")
    n_windows = len(losses)
    size = math.isqrt(n_windows - 1) + 1  # the square root, rounded up
    starts = np.arange(0, n_windows, size)
    if len(starts) > 1 and n_windows - starts[-1] < size:
        starts = starts[:-1]  # a shorter last block would weigh as much as the others
    d = np.add.reduceat(losses - unpruned, starts)
    n = np.add.reduceat(tokens, starts)
    r = float(d.sum() / n.sum())
    n_blocks = len(starts)
    if n_blocks < FEWEST_BLOCKS:
        reason = Message("too_few_windows", {"n": n_windows, "needed": FEWEST_BLOCKS})
        return PerplexityRatio(math.exp(r), None, n_windows, n_blocks, reason)
    stderr = math.sqrt(n_blocks / (n_blocks - 1) * float(((d - r * n) ** 2).sum())) / float(n.sum())
    half = float(stats.t.ppf((1 + level) / 2, n_blocks - 1)) * stderr
    return PerplexityRatio(math.exp(r), (math.exp(r - half), math.exp(r + half)), n_windows, n_blocks, None)
