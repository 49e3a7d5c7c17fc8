"""Requests merged into token trees, in which a shared prefix occurs once.

A tree lists its tokens depth first, so each token comes after all tokens that it attends to. `end[j]` is the index
after the last token below token j. Token i attends to token j if j <= i < end[j].

Requests are sorted by their tokens, so that requests with long common prefixes become neighbours. They may belong to
one document (its choices, the two sentences of WinoGrande) or to several (questions about the same passage).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from espalier.scoring.requests import Integers, Request, input_tokens

_WORTH = 8
"""Sharing a prefix must save at least 1/8 of the tokens, because larger trees are harder to pack."""


@dataclass(frozen=True)
class Forest:
    """Concatenated trees of requests.

    Attributes:
        tokens: Token of each node, (nodes,).
        depth: Position of each node in its sequences, (nodes,).
        end: Index, within the tree, of the first later node that does not attend to this node: (nodes,).
        first: Index of the first node of each tree, then the number of nodes: (trees + 1,).
        first_scored: Index of the first scored token of each tree, then the number of scored tokens: (trees + 1,).
        node: Index, within the tree, of the node whose logits predict each scored token: (scored,).
        target: Scored tokens, (scored,).
        request: Index of the request of each scored token, (scored,).
        is_chain: Whether each tree has no branches, (trees,).
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
        """Number of nodes of each tree, (trees,)."""
        return np.diff(self.first)


def build_forest(requests: Sequence[Request], *, limit: int, width: int, widest: int) -> Forest:
    """Merge requests into trees.

    Args:
        requests: Requests to merge.
        limit: The model's context, in tokens.
        width: Trees with more tokens are cut if the cut repeats few tokens.
        widest: Trees with branches and more tokens are always cut.

    Raises:
        UserError: If the context or continuation of a request is empty, or a continuation is longer than `limit`.
    """
    inputs = [input_tokens(request, limit) for request in requests]
    order = token_order(inputs)
    inputs = [inputs[i] for i in order]
    lengths = np.array([len(tokens) for tokens in inputs], dtype=np.int64)
    shared = common_prefixes(inputs)
    tree_starts = _cut(lengths, shared, width, widest)
    shared[tree_starts] = 0
    continuations = [np.asarray(requests[i].continuation, dtype=np.int32) for i in order]
    nodes = _node_arrays(inputs, shared, tree_starts, [len(tokens) for tokens in continuations])
    sizes = [len(tokens) for tokens in continuations]
    ends = [*tree_starts[1:], len(inputs)]
    return Forest(
        **nodes._asdict(),
        first_scored=np.concatenate([[0], np.cumsum(np.add.reduceat(sizes, tree_starts))]),
        target=np.concatenate(continuations),
        request=np.repeat(order, sizes),
        is_chain=np.array([_is_chain(lengths, shared, a, b) for a, b in zip(tree_starts, ends, strict=True)]),
    )


def token_order(inputs: Sequence[Integers]) -> list[int]:
    """Return the indices of token sequences in the order of their tokens."""
    keys = [tokens.astype(">u4").tobytes() for tokens in inputs]  # big-endian bytes sort in the order of the tokens
    return sorted(range(len(inputs)), key=keys.__getitem__)


def common_prefixes(inputs: Sequence[Integers]) -> Integers:
    """Return how many tokens each sequence shares with the sequence before it, 0 for the first: (sequences,)."""
    return np.array([0, *itertools.starmap(_common_prefix, itertools.pairwise(inputs))], dtype=np.int64)


def _common_prefix(a: Integers, b: Integers) -> int:
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    first = int(differ.argmax())
    return first if differ[first] else n


def _cut(lengths: Integers, shared: Integers, width: int, widest: int) -> Integers:
    """Cut the sorted requests into trees.

    First cut between neighbours whose common prefix is shorter than 1/8 of the shorter request. Then cut trees of more
    than `width` tokens where their common prefix is shortest. A tree of at most `widest` tokens is not cut if the cut
    would repeat more than 1/8 of its tokens. A tree without branches is never cut.

    Returns:
        Index of the first request of each tree, increasing.
    """
    shorter = np.minimum(lengths[1:], lengths[:-1])
    parted = np.flatnonzero(shared[1:] * _WORTH < shorter) + 1
    bounds = [0, *parted.tolist(), len(lengths)]
    todo = list(itertools.pairwise(bounds))
    tree_starts = []
    while todo:
        begin, end = todo.pop()
        inner = shared[begin + 1 : end]
        size = int(lengths[begin:end].sum() - inner.sum())
        if size <= width or _is_chain(lengths, shared, begin, end):
            tree_starts.append(begin)
            continue
        least = int(inner.min())
        cuts = np.flatnonzero(inner == least) + begin + 1
        if size <= widest and least * len(cuts) * _WORTH > size:
            tree_starts.append(begin)
            continue
        todo += itertools.pairwise([begin, *cuts.tolist(), end])
    return np.array(sorted(tree_starts), dtype=np.int64)


def _is_chain(lengths: Integers, shared: Integers, begin: int, end: int) -> bool:
    """Return whether each of the sorted requests from `begin` to `end` starts with the whole request before it."""
    return bool((shared[begin + 1 : end] == lengths[begin : end - 1]).all())


class _Nodes(NamedTuple):
    """Arrays of the nodes, as in `Forest`."""

    tokens: Integers
    depth: Integers
    end: Integers
    first: Integers
    node: Integers


def _node_arrays(
    inputs: Sequence[Integers], shared: Integers, tree_starts: Integers, n_scored: Iterable[int]
) -> _Nodes:
    """Write the nodes of all trees, depth first.

    Args:
        inputs: Input tokens of the sorted requests.
        shared: Tokens that each request shares with the request before it in the same tree.
        tree_starts: Index of the first request of each tree.
        n_scored: Number of scored tokens of each request.
    """
    n_nodes = sum(map(len, inputs)) - int(shared.sum())
    tokens, depth, end = np.empty((3, n_nodes), dtype=np.int32)
    path = np.empty(max(map(len, inputs)), dtype=np.int64)  # nodes of the current request
    is_begin = np.zeros(len(inputs), dtype=bool)
    is_begin[tree_starts] = True
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
    return _Nodes(tokens, depth, end, np.array([*first, count]), np.concatenate(node))
