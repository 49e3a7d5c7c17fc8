"""Perplexity with a sliding window: exp of the mean token loss, each token scored once.

A window of `window` tokens moves by `stride`; of each window only the tokens that no earlier window covered are
scored, so that each has at least `window - stride` tokens of context. The first token of the text has no context and
is not scored (where the tokenizer prepends BOS, that is the BOS). Source: the fixed-length recipe of the transformers
documentation, as in the reference's `ppl_standard_2048_512`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.models.context import context_length
from espalier.scoring import Request, score_requests
from espalier.scoring.requests import Tokens


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity and the number of tokens it was measured on."""

    value: float
    n_tokens: int


def make_windows(n_tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Cut a text into windows.

    Returns:
        `(begin, first_scored, end)` for each window: tokens `first_scored` to `end` are scored with the tokens from
        `begin` as context. Each token but the first is scored exactly once.
    """
    windows = []
    scored = 1
    begin = 0
    while scored < n_tokens:
        end = min(begin + window, n_tokens)
        windows.append((begin, scored, end))
        scored = end
        begin += stride
    return windows


def measure_perplexity(
    model: PreTrainedModel, tokens: Tokens, *, name: str, window: int, stride: int, token_budget: int
) -> PerplexityResult:
    """Measure the perplexity of one text.

    Args:
        model: A causal language model.
        tokens: The whole text, tokenised.
        name: Name of the text, for messages.
        window: Window length in tokens.
        stride: Tokens by which the window moves.
        token_budget: Upper bound on tokens in a forward pass.

    Raises:
        UserError: If the window is longer than the model's context, or the text has fewer than two tokens.
    """
    limit = context_length(model)
    if window > limit:
        raise UserError(
            f"evaluation.perplexity.window: got {window}, but the model's context is {limit} tokens; "
            f"give at most {limit}"
        )
    if len(tokens) < 2:
        raise UserError(f"evaluation.perplexity: text {name!r} has {len(tokens)} tokens; it needs at least 2")
    requests = [
        Request(tokens[begin:first], tokens[first:end])
        for begin, first, end in make_windows(len(tokens), window, stride)
    ]
    scores = score_requests(model, requests, token_budget=token_budget, what=f"perplexity of {name}")
    n_scored = len(tokens) - 1
    total = math.fsum(score.loglikelihood for score in scores)
    if not math.isfinite(total):
        raise UserError(f"perplexity of {name!r}: the model's log-likelihood is {total}; its weights or dtype overflow")
    return PerplexityResult(math.exp(-total / n_scored), n_scored)
