"""Log-likelihoods of continuations and of whole texts under a causal language model.

For a context c and a continuation t_1 .. t_n, the log-likelihood is sum_i log p(t_i | c, t_1 .. t_{i-1}). Needs torch
and transformers only. Rules follow lm-evaluation-harness 0.4.13: a sequence longer than the model's context loses
tokens at its left end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from espalier.models.loading import context_length
from espalier.progress import Progress


@dataclass(frozen=True)
class Request:
    """Tokens to score: `continuation` given `context`; both have at least one token."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclass(frozen=True)
class Score:
    """Sum of token log-probabilities (nats), and whether each token was the most probable one."""

    loglikelihood: float
    is_greedy: bool


@torch.inference_mode()
def score_requests(
    model: PreTrainedModel, requests: Sequence[Request], *, token_budget: int, what: str = "scoring"
) -> list[Score]:
    """Score requests in padded batches, longest first.

    Args:
        model: A causal language model.
        requests: What to score.
        token_budget: Upper bound on rows x padded length of a batch (a single longer row still runs).
        what: Shown with the progress.

    Returns:
        One score per request, in the order given. A log-likelihood may be NaN or infinite: callers know the document
        and must check.
    """
    limit = context_length(model)
    inputs = [[*request.context, *request.continuation][-(limit + 1) :][:-1] for request in requests]
    scores: list[Score | None] = [None] * len(requests)
    with Progress(what, total=sum(map(len, inputs)), unit="tokens") as progress:
        for rows in batches_by_length([len(tokens) for tokens in inputs], token_budget):
            batch = [inputs[row] for row in rows]
            continuations = [requests[row].continuation for row in rows]
            logits = model(input_ids=_pad(batch, model.device), use_cache=False).logits
            found = _score_batch(logits, [len(tokens) for tokens in batch], continuations)
            for row, score in zip(rows, found, strict=True):
                scores[row] = score
            progress.advance(sum(map(len, batch)))
    return [score for score in scores if score is not None]


def batches_by_length(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Group indices, longest first, so that rows x longest row stays within the budget."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _pad(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Pad at the right with token 0; causal attention keeps the padding out of what is scored."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long, device=device)


def _score_batch(logits: torch.Tensor, lengths: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[Score]:
    """Score the last tokens of every row at once.

    Args:
        logits: (rows, width, vocabulary).
        lengths: Length of each row without padding; its last logits predict the last token of the continuation.
        continuations: Tokens to score, one list per row.
    """
    sizes = torch.tensor([len(continuation) for continuation in continuations], device=logits.device)
    targets = torch.tensor([token for continuation in continuations for token in continuation], device=logits.device)
    positions = torch.tensor(
        [
            position
            for length, continuation in zip(lengths, continuations, strict=True)
            for position in range(length - len(continuation), length)
        ],
        device=logits.device,
    )
    rows = torch.repeat_interleave(torch.arange(len(sizes), device=logits.device), sizes)
    log_probs = torch.log_softmax(logits[rows, positions], dim=-1, dtype=torch.float32)  # (scored tokens, vocabulary)
    token_scores = log_probs.gather(-1, targets[:, None])[:, 0]
    misses = (log_probs.argmax(dim=-1) != targets).float()
    sums = torch.zeros(len(sizes), 2, device=logits.device)
    sums.index_add_(0, rows, torch.stack([token_scores, misses], dim=1))
    return [Score(loglikelihood, n_misses == 0) for loglikelihood, n_misses in sums.tolist()]
