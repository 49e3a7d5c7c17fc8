"""What is scored, and the rule that cuts what is longer than the model's context.

For a context c and a continuation t_1 .. t_n, the log-likelihood is sum_i log p(t_i | c, t_1 .. t_{i-1}). As in
lm-evaluation-harness 0.4.13, a sequence longer than the context loses tokens at its left end, and the last token of
all is only predicted, never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from espalier.errors import UserError

Integers = npt.NDArray[np.integer[Any]]
Tokens = Sequence[int] | Integers


@dataclass(frozen=True, eq=False)
class Request:
    """Tokens to score: `continuation` given `context`; both have at least one token."""

    context: Tokens
    continuation: Tokens


class Score(NamedTuple):
    """Sum of token log-probabilities (nats), and whether each token was the most probable one."""

    loglikelihood: float
    is_greedy: bool


def is_cut(request: Request, limit: int) -> bool:
    """Whether a request is longer than a context of `limit` tokens."""
    return len(request.context) + len(request.continuation) > limit + 1


def input_tokens(request: Request, limit: int) -> Integers:
    """Return what the model reads: at most `limit` tokens, without the last of the continuation.

    Raises:
        UserError: If context or continuation is empty, or the continuation alone is longer than `limit`.
    """
    n_context, n_continuation = len(request.context), len(request.continuation)
    if not n_context or not 0 < n_continuation <= limit:
        raise UserError(
            f"a request has {n_context} tokens of context and {n_continuation} of continuation; it needs at least one "
            f"of each, and at most {limit} (the model's context) of continuation; shorten or drop the document"
        )
    context = np.asarray(request.context, dtype=np.int32)
    continuation = np.asarray(request.continuation, dtype=np.int32)
    return np.concatenate([context, continuation[:-1]])[-limit:]
