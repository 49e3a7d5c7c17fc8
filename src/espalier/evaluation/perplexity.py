"""Perplexity over windows: exp of the mean token loss, each token scored at most once.

A window of `window` tokens moves by `stride`; of each window only the tokens that no earlier window covered are scored,
so that each has at least `window - stride` tokens of context. The first token of the text has no context and is not
scored. Source: the fixed-length recipe of the transformers documentation, as in the reference's
`ppl_standard_2048_512`.

With `stride` equal to `window` the windows are disjoint, as Wanda, SparseGPT and GPTQ report: the first token of every
window has no context and is not scored, and what is left at the end of the text, shorter than a window, is left out.

`bos` says which windows begin with the BOS token. `every` gives each window one, which takes a place of the window and
is the context of its first token; so with disjoint windows (`stride` of `window` or one less) every token of the whole
windows is scored. `first` begins the text with it, `none` removes the one that the tokenizer adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from espalier.errors import UserError
from espalier.evaluation.protocol import Bos
from espalier.models.context import context_length
from espalier.scoring import Request, score_requests
from espalier.scoring.requests import Integers, Tokens


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity of a text.

    Attributes:
        value: exp of the mean loss over all scored tokens.
        n_tokens: Scored tokens.
        window_losses: Summed loss of the scored tokens of each window (nats): (windows,).
        window_tokens: Scored tokens of each window: (windows,).
    """

    value: float
    n_tokens: int
    window_losses: npt.NDArray[np.float64]
    window_tokens: Integers


def make_windows(n_tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Cut a text into windows.

    Returns:
        `(begin, first_scored, end)` for each window: tokens `first_scored` to `end` are scored with the tokens from
        `begin` as context. With overlapping windows each token but the first is scored exactly once; with disjoint ones
        each but the first of a window, in whole windows only (a text shorter than one is a window).
    """
    if stride == window:
        n_windows = max(1, n_tokens // window)
        return [(i * window, i * window + 1, min((i + 1) * window, n_tokens)) for i in range(n_windows)]
    windows = []
    scored = 1
    begin = 0
    while scored < n_tokens:
        end = min(begin + window, n_tokens)
        windows.append((begin, scored, end))
        scored = end
        begin += stride
    return windows


def window_requests(
    tokens: Tokens, *, window: int, stride: int, bos: Bos | None, bos_token: int | None
) -> list[Request]:
    """Make one request for each window.

    Args:
        tokens: The whole text, tokenised.
        window: Tokens of a window, BOS included.
        stride: Tokens by which the window moves, at most `window`.
        bos: Which windows begin with BOS; None takes the text as it is.
        bos_token: The BOS token; only `bos` needs it.
    """
    text = np.asarray(tokens, dtype=np.int64)
    if bos is None:
        windows = make_windows(len(text), window, stride)
        return [Request(text[begin:first], text[first:end]) for begin, first, end in windows]
    start = np.array([] if bos_token is None else [bos_token], dtype=np.int64)
    if len(start) and len(text) and text[0] == bos_token:
        text = text[1:]  # the tokenizer's own
    if bos != "every":
        text = text if bos == "none" else np.concatenate([start, text])
        return window_requests(text, window=window, stride=stride, bos=None, bos_token=None)
    inner = window - 1  # tokens of the text in a window
    if stride >= inner:
        n_windows = max(1, len(text) // inner)
        pieces = [(i * inner, i * inner, (i + 1) * inner) for i in range(n_windows)]
    else:
        windows = make_windows(len(text), inner, stride)
        pieces = [(begin, 0 if begin == 0 else first, end) for begin, first, end in windows]
    return [Request(np.concatenate([start, text[begin:first]]), text[first:end]) for begin, first, end in pieces]


def measure_perplexity(
    model: PreTrainedModel,
    tokens: Tokens,
    *,
    name: str,
    window: int,
    stride: int,
    token_budget: int,
    max_tokens: int | None = None,
    bos: Bos | None = None,
    bos_token: int | None = None,
) -> PerplexityResult:
    """Measure the perplexity of one text.

    Args:
        model: A causal language model.
        tokens: The whole text, tokenised.
        name: Name of the text, for messages.
        window: Window length in tokens.
        stride: Tokens by which the window moves, at most `window`.
        token_budget: Upper bound on tokens in a forward pass.
        max_tokens: First tokens of the text that are read; None is all.
        bos: Which windows begin with BOS; None takes the text as it was tokenised.
        bos_token: The tokenizer's BOS token; None where it has none.

    Raises:
        UserError: If the window is longer than the model's context, the text has nothing to score, or BOS is asked for
            and the tokenizer has none.
    """
    limit = context_length(model)
    if window > limit:
        raise UserError(
            f"evaluation.perplexity.window: got {window}, but the model's context is {limit} tokens; "
            f"give at most {limit}"
        )
    if bos in {"first", "every"} and bos_token is None:
        raise UserError(
            f"evaluation.perplexity.bos: got {bos!r}, but the tokenizer has no BOS token; leave the key out, or give "
            "'none'"
        )
    requests = [
        request
        for request in window_requests(tokens[:max_tokens], window=window, stride=stride, bos=bos, bos_token=bos_token)
        if len(request.continuation) and len(request.context)
    ]
    if not requests:
        raise UserError(
            f"evaluation.perplexity: text {name!r} has {len(tokens)} tokens, none of which has a context to be scored "
            "in; give a longer text"
        )
    scores = score_requests(model, requests, token_budget=token_budget, what=f"perplexity of {name}")
    losses = np.array([-score.loglikelihood for score in scores])
    n_tokens = np.array([len(request.continuation) for request in requests])
    total = math.fsum(losses.tolist())
    if not math.isfinite(total):
        raise UserError(
            f"perplexity of {name!r}: the model's log-likelihood is {-total}; its weights or dtype overflow"
        )
    n_scored = int(n_tokens.sum())
    return PerplexityResult(math.exp(total / n_scored), n_scored, losses, n_tokens)
