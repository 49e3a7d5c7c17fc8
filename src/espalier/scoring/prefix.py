"""Prefixes that many requests share, such as the solved examples of a task: computed once, with their keys and values.

A token tree holds a shared prefix once. But a tree has a largest size, so the requests of one task may need many trees,
and each would compute the prefix again. Here it is computed once. All trees then attend to its keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from espalier.scoring.requests import Integers, Request, input_tokens
from espalier.scoring.tree import common_prefixes, token_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WORTH = 4
"""Sharing a prefix must save at least 1/4 of the tokens, because attention to it needs masks and copies."""
_SHORTEST, _LONGEST = 64, 8192
"""Lengths of prefixes, in tokens. The size of the mask of a prefix is the square of its tokens."""


@dataclass(frozen=True)
class SharedPrefix:
    """Requests that share a prefix.

    Attributes:
        tokens: Tokens of the prefix.
        requests: Indices of the requests.
        suffixes: What follows the prefix in each of them.
    """

    tokens: Integers
    requests: Integers
    suffixes: Sequence[Request]


def find_prefixes(requests: Sequence[Request], *, limit: int, widest: int) -> list[SharedPrefix]:
    """Find requests whose common prefix would be computed often, because they do not fit in one tree.

    Args:
        requests: All requests.
        limit: The model's context, in tokens.
        widest: Most tokens of a tree with branches.

    Returns:
        Disjoint groups of requests. Requests without such a prefix are in none of them.
    """
    inputs = [input_tokens(request, limit) for request in requests]
    order = np.array(token_order(inputs), dtype=np.int64)
    lengths = np.array([len(inputs[i]) for i in order], dtype=np.int64)
    free = np.array([len(inputs[i]) - len(requests[i].continuation) for i in order], dtype=np.int64)
    shared = common_prefixes([inputs[i] for i in order])
    found = []
    for begin, end, length in _segments(lengths, shared, free, widest):
        members = order[begin:end]
        suffixes = [_suffix(inputs[i], requests[i], length) for i in members]
        found.append(SharedPrefix(inputs[members[0]][:length], members, suffixes))
    return found


def _segments(lengths: Integers, shared: Integers, free: Integers, widest: int) -> Iterator[tuple[int, int, int]]:
    """Yield begin, end and prefix length of the groups among the sorted requests.

    Args:
        lengths: Tokens of each request.
        shared: Tokens that each request shares with the one before.
        free: Tokens of each request before the first whose prediction is scored.
        widest: Most tokens of a tree with branches.
    """
    todo = [(0, len(lengths))]
    while todo:
        begin, end = todo.pop()
        inner = shared[begin + 1 : end]
        size = int(lengths[begin:end].sum() - inner.sum())
        if size <= widest or not len(inner):
            continue
        least = int(inner.min())
        cuts = np.flatnonzero(inner == least) + begin + 1
        length = min(least, int(free[begin:end].min()), _LONGEST)
        if length >= _SHORTEST and length * len(cuts) * _WORTH > size + length * len(cuts):
            yield begin, end, length
        else:
            todo += pairwise([begin, *cuts.tolist(), end])


def _suffix(tokens: Integers, request: Request, length: int) -> Request:
    n_context = len(tokens) - len(request.continuation) + 1
    return Request(tokens[length:n_context], request.continuation)


class KeysAndValues:
    """Keys and values of a prefix, by layer. It has the methods of transformers' caches that decoders call.

    While `is_recording`, it stores what the layers give it. Afterwards it puts this before the keys and values of each
    row, and stores nothing.
    """

    def __init__(self) -> None:
        self.is_recording = True
        self.n_tokens = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values that a layer attends to, each (rows, heads, prefix + tokens, width)."""
        if self.is_recording:
            self._layers[layer_idx] = (keys, values)
            return keys, values
        before = self._layers[layer_idx]
        return _after(before[0], keys), _after(before[1], values)

    def get_seq_length(self, *_: int) -> int:
        """Return the number of tokens of the prefix that are stored."""
        return self.n_tokens


def _after(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return torch.cat([prefix.expand(own.shape[0], -1, -1, -1), own], dim=2)


def compute_prefix(model: PreTrainedModel, tokens: torch.Tensor, mask: Any) -> KeysAndValues:
    """Compute the keys and values of a prefix.

    Args:
        model: A causal language model.
        tokens: Tokens of the prefix, (1, tokens).
        mask: Causal mask, as `espalier.scoring.attention.Attention.mask` returns it.
    """
    found = KeysAndValues()
    position = torch.arange(tokens.shape[1], device=tokens.device)[None]
    model.get_decoder()(
        input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=found, use_cache=False
    )
    found.is_recording, found.n_tokens = False, tokens.shape[1]
    return found
