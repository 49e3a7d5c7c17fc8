"""Perplexity ratio of two models on one text, with a confidence interval.

Both models score the same tokens in the same windows, so the difficulty of a window cancels. L_w and U_w are the summed
losses (nats) of the pruned and the unpruned model in window w, and n_w is its number of scored tokens:

    d_w = L_w - U_w;   r = sum d_w / sum n_w;   ratio of perplexities = exp(r)

Neighbouring windows have similar content, so they are not independent. The W windows are therefore grouped into B
blocks of ceil(sqrt(W)) consecutive windows, as for batch means (Jones et al., Fixed-width output analysis for Markov
chain Monte Carlo, 2006). A shorter last block is merged into the block before it. Block k has the sums d_k and n_k. The
standard error of the ratio of sums r (Cochran, Sampling Techniques, 1977, section 6.4) and the interval are:

    se = sqrt(B / (B - 1) * sum_k (d_k - r n_k)**2) / sum n_k;   exp(r -+ t(B - 1) * se)

The interval covers other samples of similar text. It does not cover other kinds of text or other calibration seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from espalier.errors import UserError
from espalier.messages.catalogue import Message
from espalier.statistics.bootstrap import CONFIDENCE_LEVEL
from espalier.statistics.validation import FloatArray, IntArray

MIN_BLOCKS = 4
NO_WINDOWS = Message("no_windows")
"""Reason why a ratio has no interval: the results (version 0.1.0 or imported) have no window losses."""


@dataclass(frozen=True)
class PerplexityRatio:
    """Ratio of two perplexities on one text.

    Attributes:
        ratio: Perplexity of the pruned model divided by the perplexity of the unpruned model.
        interval: Lower and upper end of its confidence interval; None if there are too few windows.
        n_windows: Number of windows of the text.
        n_blocks: Number of blocks of windows.
        reason: Why `interval` is None; None if there is an interval.
    """

    ratio: float
    interval: tuple[float, float] | None
    n_windows: int
    n_blocks: int
    reason: Message | None


@dataclass(frozen=True)
class WindowLosses:
    """Losses of one model on one text.

    Attributes:
        losses: Summed loss of each window (nats), (n_windows,).
        tokens: Number of scored tokens of each window, (n_windows,).
    """

    losses: FloatArray
    tokens: IntArray


def paired_ratio(pruned: WindowLosses, unpruned: WindowLosses, *, level: float = CONFIDENCE_LEVEL) -> PerplexityRatio:
    """Compute the perplexity ratio of two models from their losses in the same windows.

    Args:
        pruned: Losses of the pruned model.
        unpruned: Losses of the unpruned model.
        level: Confidence level of the interval.

    Raises:
        UserError: If the windows of the two models differ, there is no window, or a loss is not finite.
    """
    tokens = pruned.tokens
    if not (len(tokens) and np.array_equal(tokens, unpruned.tokens)):
        raise UserError("perplexity: the two models were measured in different windows; evaluate both again")
    if not len(pruned.losses) == len(unpruned.losses) == len(tokens):
        raise UserError("perplexity: a window has no loss or no number of tokens; evaluate both models again")
    if not (np.isfinite(pruned.losses).all() and np.isfinite(unpruned.losses).all()):
        raise UserError("perplexity: the loss of a window is not finite; evaluate again in float32 (evaluation.dtype)")
    n_windows = len(tokens)
    size = math.isqrt(n_windows - 1) + 1  # ceil(sqrt(n_windows))
    starts = np.arange(0, n_windows, size)
    if len(starts) > 1 and n_windows - starts[-1] < size:
        starts = starts[:-1]  # merge a shorter last block: the standard error treats all blocks alike
    d = np.add.reduceat(pruned.losses - unpruned.losses, starts)
    n = np.add.reduceat(tokens, starts)
    r = float(d.sum() / n.sum())
    n_blocks = len(starts)
    if n_blocks < MIN_BLOCKS:
        reason = Message("too_few_windows", {"n": n_windows, "needed": MIN_BLOCKS})
        return PerplexityRatio(math.exp(r), None, n_windows, n_blocks, reason)
    stderr = math.sqrt(n_blocks / (n_blocks - 1) * float(((d - r * n) ** 2).sum())) / float(n.sum())
    half = float(stats.t.ppf((1 + level) / 2, n_blocks - 1)) * stderr
    return PerplexityRatio(math.exp(r), (math.exp(r - half), math.exp(r + half)), n_windows, n_blocks, None)
