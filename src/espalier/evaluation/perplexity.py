"""Perplexity over windows: exp of the mean loss of the scored tokens. Each token is scored at most once.

A window of `window` tokens moves by `stride` tokens. In each window, only the tokens that no earlier window covered are
scored. After the first window, each scored token therefore has at least `window - stride` tokens of context. The first
token of the text has no context and is not scored. Source: the documentation of transformers, "Perplexity of
fixed-length models". The reference's `ppl_standard_2048_512` uses the same windows.

If `stride` equals `window`, windows do not overlap, as in Wanda, SparseGPT and GPTQ. The first token of each window has
no context and is not scored. The tokens after the last whole window are not scored either.

`bos` determines which windows begin with the BOS token:

* `every`: each window. BOS counts as a token of the window and is the context of the window's next token. Windows that
  do not overlap (`stride` is `window` or `window - 1`) therefore score all tokens of the whole windows.
* `first`: the first window only.
* `none`: no window. BOS is removed if the tokenizer added it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from espalier.errors import UserError
from espalier.evaluation.protocol import Bos
from espalier.models.context import context_length
from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Integers, Request, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity of a text.

    Attributes:
        value: exp of the mean loss over all scored tokens.
        n_tokens: Number of scored tokens.
        window_losses: Sum of the losses (nats) of the scored tokens of each window, (windows,).
        window_tokens: Number of scored tokens of each window, (windows,).
    """

    value: float
    n_tokens: int
    window_losses: npt.NDArray[np.float64]
    window_tokens: Integers


class Window(NamedTuple):
    """Window of a text. All three are indices of tokens.

    Attributes:
        begin: First token. The tokens from here up to `first_scored` are context.
        first_scored: First token that is scored.
        end: First token after the window.
    """

    begin: int
    first_scored: int
    end: int


def make_windows(n_tokens: int, window: int, stride: int, *, n_unscored: Literal[0, 1] = 1) -> list[Window]:
    """Cut a text into windows.

    If windows overlap, every token except the first one of the text is scored once. If `stride` equals `window`, every
    token of the whole windows is scored except the first token of each window. A text that is shorter than a window is
    one window.

    Args:
        n_tokens: Tokens of the text.
        window: Tokens of a window.
        stride: Tokens by which the window moves, at most `window`.
        n_unscored: 0 if the first token of the text (of each window, if `stride` equals `window`) is scored, too,
            because BOS is its context.
    """
    if stride == window:
        n_windows = max(1, n_tokens // window)
        return [Window(i * window, i * window + n_unscored, min((i + 1) * window, n_tokens)) for i in range(n_windows)]
    windows = []
    scored: int = n_unscored
    begin = 0
    while scored < n_tokens:
        end = min(begin + window, n_tokens)
        windows.append(Window(begin, scored, end))
        scored = end
        begin += stride
    return windows


def window_requests(
    tokens: Tokens, *, window: int, stride: int, bos: Bos | None, bos_token: int | None
) -> list[Request]:
    """Return one request for each window.

    Args:
        tokens: Token ids of the whole text.
        window: Tokens of a window, BOS included.
        stride: Tokens by which the window moves, at most `window`.
        bos: Windows that begin with BOS. None keeps the tokens as they are.
        bos_token: The BOS token, or None if the tokenizer has none. Not used if `bos` is None.
    """
    text = np.asarray(tokens, dtype=np.int64)
    if bos is None:
        windows = make_windows(len(text), window, stride)
        return [Request(text[begin:first], text[first:end]) for begin, first, end in windows]
    start = np.array([] if bos_token is None else [bos_token], dtype=np.int64)
    if len(start) and len(text) and text[0] == bos_token:
        text = text[1:]  # the BOS that the tokenizer added
    if bos != "every":
        text = text if bos == "none" else np.concatenate([start, text])
        return window_requests(text, window=window, stride=stride, bos=None, bos_token=None)
    inner = window - 1  # tokens of a window without BOS, which is the context of the first token
    windows = make_windows(len(text), inner, min(stride, inner), n_unscored=0)
    return [Request(np.concatenate([start, text[begin:first]]), text[first:end]) for begin, first, end in windows]


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
        tokens: Token ids of the whole text.
        name: Name of the text, for messages.
        window: Tokens of a window, BOS included.
        stride: Tokens by which the window moves, at most `window`.
        token_budget: Most tokens per forward pass.
        max_tokens: Number of first tokens of the text to use. None uses all.
        bos: Windows that begin with BOS. None keeps the tokens as they are.
        bos_token: The BOS token, or None if the tokenizer has none.

    Raises:
        UserError: If the window is longer than the model's context, the text has no token to score, a log-likelihood is
            not finite, or `bos` needs a BOS token and the tokenizer has none.
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
    tokens = tokens[:max_tokens]
    requests = [
        request
        for request in window_requests(tokens, window=window, stride=stride, bos=bos, bos_token=bos_token)
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
