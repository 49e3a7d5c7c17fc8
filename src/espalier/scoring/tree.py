"""Requests as token trees: what several requests begin with is there once.

A tree lists its tokens depth first, so that each token comes after all that it may see. `end` is the index one past
the last token below it: token i sees token j where j <= i < end[j]. Requests are sorted by their tokens; neighbours in
that order share their longest prefixes, whether they belong to one document (choices, the two sentences of WinoGrande)
or to several (questions on one passage).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from espalier.scoring.requests import Integers, Request, input_tokens

_WORTH = 8
"""A prefix shorter than 1/8 of what it begins is not worth a bigger tree, which is harder to pack."""


@dataclass(frozen=True)
class Forest:
    """Trees, one after another.

    Attributes:
        tokens: Token of each node: (nodes,).
        depth: Position of each node in its sequences: (nodes,).
        end: Index within its tree of the first later node that does not see this one: (nodes,).
        first: First node of each tree, and the number of nodes: (trees + 1,).
        first_scored: First scored token of each tree, and their number: (trees + 1,).
        node: Node whose logits predict each scored token, counted within its tree: (scored,).
        target: The scored tokens: (scored,).
        request: Index of the request that each belongs to: (scored,).
        is_chain: Whether a tree has no branches: (trees,).
    """

    tokens: Integers
    depth: Integers
    end: Integers
    first: Integers
    first_scored: Integers
    node: Integers
    target: Integers
    request: Integers
    is_chain: npt.NDArray[np.bool_]

    @property
    def sizes(self) -> Integers:
        """Number of tokens of each tree."""
        return np.diff(self.first)


def build_forest(requests: Sequence[Request], *, limit: int, width: int, widest: int) -> Forest:
    """Merge requests into trees.

    Args:
        requests: What to score.
        limit: The model's context, in tokens.
        width: Trees up to this size stay whole; bigger ones are cut where that costs little.
        widest: Bigger trees are cut whatever it costs.

    Raises:
        UserError: If a request is empty or its continuation too long.
    """
    inputs = [input_tokens(request, limit) for request in requests]
    keys = [tokens.astype(">u4").tobytes() for tokens in inputs]  # bytes that sort as the tokens do
    order = sorted(range(len(inputs)), key=keys.__getitem__)
    inputs = [inputs[i] for i in order]
    lengths = np.array([len(tokens) for tokens in inputs], dtype=np.int64)
    shared = np.array([0, *itertools.starmap(_common_prefix, itertools.pairwise(inputs))], dtype=np.int64)
    begins = _cut(lengths, shared, width, widest)
    shared[begins] = 0
    continuations = [np.asarray(requests[i].continuation, dtype=np.int32) for i in order]
    nodes = _lay_out(inputs, shared, begins, [len(tokens) for tokens in continuations])
    sizes = [len(tokens) for tokens in continuations]
    ends = [*begins[1:], len(inputs)]
    return Forest(
        **nodes,
        first_scored=np.concatenate([[0], np.cumsum(np.add.reduceat(sizes, begins))]),
        target=np.concatenate(continuations),
        request=np.repeat(order, sizes),
        is_chain=np.array([_is_chain(lengths, shared, a, b) for a, b in zip(begins, ends, strict=True)]),
    )


def _common_prefix(a: Integers, b: Integers) -> int:
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    first = int(differ.argmax())
    return first if differ[first] else n


def _cut(lengths: Integers, shared: Integers, width: int, widest: int) -> Integers:
    """Cut the sorted requests into trees; return the first request of each.

    Neighbours that share too little to matter are parted first. What is still bigger than `width` is parted where
    least is shared, as long as that adds little to the work.
    """
    shorter = np.minimum(lengths[1:], lengths[:-1])
    parted = np.flatnonzero(shared[1:] * _WORTH < shorter) + 1
    bounds = [0, *parted.tolist(), len(lengths)]
    todo = list(itertools.pairwise(bounds))
    begins = []
    while todo:
        begin, end = todo.pop()
        inner = shared[begin + 1 : end]
        size = int(lengths[begin:end].sum() - inner.sum())
        if size <= width or _is_chain(lengths, shared, begin, end):
            begins.append(begin)
            continue
        least = int(inner.min())
        cuts = np.flatnonzero(inner == least) + begin + 1
        if size <= widest and least * len(cuts) * _WORTH > size:
            begins.append(begin)
            continue
        todo += itertools.pairwise([begin, *cuts.tolist(), end])
    return np.array(sorted(begins), dtype=np.int64)


def _is_chain(lengths: Integers, shared: Integers, begin: int, end: int) -> bool:
    """Whether each of these sorted requests begins with all of the one before it."""
    return bool((shared[begin + 1 : end] == lengths[begin : end - 1]).all())


def _lay_out(inputs: Sequence[Integers], shared: Integers, begins: Integers, n_scored: Iterable[int]) -> dict[str, Any]:
    """List the nodes of all trees, and the nodes that predict the last tokens of each request."""
    n_nodes = sum(map(len, inputs)) - int(shared.sum())
    tokens, depth, end = np.empty((3, n_nodes), dtype=np.int32)
    path = np.empty(max(map(len, inputs)), dtype=np.int64)  # nodes of the request at hand
    is_begin = np.zeros(len(inputs), dtype=bool)
    is_begin[begins] = True
    first, node = [], []
    base = count = length = 0
    for sequence, common, begins_tree, n in zip(inputs, shared.tolist(), is_begin.tolist(), n_scored, strict=True):
        end[path[common:length]] = count - base
        if begins_tree:
            base = count
            first.append(base)
        length = len(sequence)
        new = slice(count, count + length - common)
        tokens[new] = sequence[common:]
        depth[new] = path[common:length] = np.arange(common, length)
        path[common:length] += count - common
        count = new.stop
        node.append(path[length - n : length] - base)
    end[path[:length]] = count - base
    return {
        "tokens": tokens,
        "depth": depth,
        "end": end,
        "first": np.array([*first, count]),
        "node": np.concatenate(node),
    }
