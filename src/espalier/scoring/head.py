"""Token log-probabilities from hidden states, computed at the scored positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers.modeling_outputs import MoeModelOutputWithPast

from espalier.models.replaced_forward import replaced_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Head = Callable[[torch.Tensor], torch.Tensor]


def positions_at_once(max_logits: int, model: PreTrainedModel) -> int:
    """Return the number of positions whose logits are at most `max_logits` numbers; at least one."""
    return max(1, max_logits // int(model.config.vocab_size))


@contextmanager
def decoder_bypassed(model: PreTrainedModel) -> Iterator[Head]:
    """Yield a function that maps the decoder's output to logits, as the model does it (output embedding, scaling, ...).

    The function takes hidden states, (positions, hidden), and returns logits, (positions, vocabulary). Inside the
    block, the decoder of the model is replaced by a function that returns these hidden states. Logits are on the device
    of the output embeddings, which may be another one if the model is on several devices.
    """
    decoder = model.get_decoder()
    # accelerate copies the logits of a model on several devices to the device of its input: none is copied this way.
    token = torch.zeros(1, 1, dtype=torch.long, device=model.get_output_embeddings().weight.device)
    hidden: torch.Tensor

    def forward(*_: object, **__: object) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=hidden[None])

    def head(states: torch.Tensor) -> torch.Tensor:
        nonlocal hidden
        hidden = states
        return model(input_ids=token, use_cache=False).logits[0]

    with replaced_forward(decoder, forward):
        yield head


def score_tokens(
    head: Head, hidden: torch.Tensor, index: torch.Tensor, target: torch.Tensor, pieces: list[tuple[int, int, int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score tokens in pieces, to limit the memory of the logits.

    Args:
        head: Function that maps hidden states to logits.
        hidden: Hidden states, (positions, hidden).
        index: Position whose logits predict each scored token, in increasing order: (scored,).
        target: Scored tokens, (scored,).
        pieces: For each piece, begin and end of its positions, then begin and end of its scored tokens. Ends are
            exclusive.

    Returns:
        Log-probability of each scored token, float32, and whether the token is the most probable one, each (scored,).
    """
    scores, hits = [], []
    for first, last, first_token, last_token in pieces:
        logits = head(hidden[first:last])
        rows, wanted = (of_token[first_token:last_token].to(logits.device) for of_token in (index - first, target))
        log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        scores.append(log_probs[rows, wanted])
        best = logits.max(dim=-1).indices  # the first largest token as with argmax, in half of its time on a CPU
        hits.append(best[rows] == wanted)
    return torch.cat(scores), torch.cat(hits)
