"""Token log-probabilities from hidden states, at the scored positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

Head = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def decoder_left_out(model: PreTrainedModel) -> Iterator[Head]:
    """Yield a function that applies what a model does after its decoder, whatever that is (scaling, capping).

    It maps hidden states (positions, hidden) to logits (positions, vocabulary). While the block runs, the model's
    decoder does nothing.
    """
    decoder = model.get_decoder()
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    hidden: torch.Tensor

    def forward(*_: object, **__: object) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=hidden[None])

    def head(states: torch.Tensor) -> torch.Tensor:
        nonlocal hidden
        hidden = states
        return model(input_ids=token, use_cache=False).logits[0]

    own = vars(decoder).get("forward")  # libraries that move weights put one on the instance
    decoder.forward = forward
    try:
        yield head
    finally:
        del decoder.forward
        if own is not None:
            decoder.forward = own


def score_tokens(
    head: Head, hidden: torch.Tensor, index: torch.Tensor, target: torch.Tensor, pieces: list[tuple[int, int, int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score tokens a few positions at a time, so that logits of few positions exist at once.

    Args:
        head: Maps hidden states to logits.
        hidden: (positions, hidden).
        index: Position that predicts each token, increasing: (scored,).
        target: The tokens: (scored,).
        pieces: First and last position, first and last token of each piece.

    Returns:
        Log-probability of each token in float32, and whether it was the most probable one: (scored,) each.
    """
    scores, hits = [], []
    for first, last, first_token, last_token in pieces:
        logits = head(hidden[first:last])
        rows, wanted = index[first_token:last_token] - first, target[first_token:last_token]
        log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        scores.append(log_probs[rows, wanted])
        hits.append(logits.argmax(dim=-1)[rows] == wanted)
    return torch.cat(scores), torch.cat(hits)
