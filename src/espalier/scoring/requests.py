"""Requests, scores, and the rule that truncates a request to the model's context.

A request is a context c and a continuation t_1 .. t_n. Its log-likelihood is sum_i log p(t_i | c, t_1 .. t_{i-1}).

Truncation follows lm-evaluation-harness 0.4.13. The last token of the continuation is only predicted, so it is not an
input of the model. If the remaining tokens exceed the model's context, the first ones are dropped.
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
    """A continuation to score, given a context. Both need at least one token."""

    context: Tokens
    continuation: Tokens


class Score(NamedTuple):
    """Score of a request.

    Attributes:
        loglikelihood: Sum of the log-probabilities of the continuation's tokens, in nats.
        is_greedy: Whether every token of the continuation is the most probable one.
    """

    loglikelihood: float
    is_greedy: bool


def is_truncated(request: Request, limit: int) -> bool:
    """Return whether a request is truncated to fit a context of `limit` tokens."""
    return len(request.context) + len(request.continuation) > limit + 1


def input_tokens(request: Request, limit: int) -> Integers:
    """Return the input tokens of a request: its last `limit` tokens, without the last token of the continuation.

    Raises:
        UserError: If the context or the continuation is empty, or the continuation is longer than `limit`.
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
