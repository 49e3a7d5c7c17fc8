"""Packing of token trees into rows, rows into batches, and batches into arrays.

A batch is an input of the model, (rows, width). A row holds one or more trees, one after the other. The costs of
attention and its mask grow with the square of the row width, so narrow rows are cheaper. Several rows per batch keep
the matrix products large. Rows are filled by best-fit decreasing: trees are placed from the longest to the shortest,
each into the row where it leaves the least room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.scoring.requests import Integers
from espalier.scoring.tree import Forest

_STEP = 8
"""Row widths are multiples of this number, because GPU kernels read masks in pieces of 8."""
_MIN_WIDTH_FRACTION = 0.9
"""A row narrower than this fraction of the batch's width starts a new batch."""
_WIDTHS = (128, 256, 512, 1024)
"""Row widths that `choose_batches` compares, in tokens."""


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    Attributes:
        rows: Indices of the trees in each row.
        width: Tokens of a row, padding included.
        is_causal: Whether each row holds a single tree without branches, so that plain causal attention is enough.
    """

    rows: tuple[tuple[int, ...], ...]
    width: int
    is_causal: bool

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the model computes, padding included."""
        return len(self.rows) * self.width


@dataclass(frozen=True)
class BatchArrays:
    """A batch as arrays on the host.

    Attributes:
        nodes: Token, depth and end of each position, (3, rows, width), as in `Forest`. Ends are indices within the row.
            A padding token attends only to itself.
        position: Positions whose logits are needed, as increasing indices into the flattened batch: (positions,).
        index: For each scored token, the index into `position` of the position that predicts it, in increasing order:
            (scored,). Several scored tokens may share a position.
        target: Scored tokens, (scored,).
        request: Index of the request of each scored token, (scored,).
    """

    nodes: Integers
    position: Integers
    index: Integers
    target: Integers
    request: Integers


def best_fit_rows(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Distribute items over rows by best-fit decreasing.

    Args:
        sizes: Size of each item.
        width: Size of a row. A larger item opens a row of the item's own size, rounded up to a multiple of 8.

    Returns:
        Indices of the items in each row.
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # indices of rows, by the room left in them
    rooms = 0  # bit r is set while some row has room r
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[item]
        fitting = rooms >> size  # bit r is set while some row would have room r left
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            row = len(rows)
            rows.append([])
            room = max(width, _round_up(size))
        rows[row].append(item)
        left = room - size
        open_rows.setdefault(left, []).append(row)
        rooms |= 1 << left
    return rows


def choose_batches(forest: Forest, *, token_budget: int, break_even: float) -> list[Batch]:
    """Pack trees into batches with the row width that has the lowest cost.

    Narrow rows make attention cheaper. Wide rows have less padding. The cost of a batch is n_tokens * (1 + width /
    break_even): matrix products cost 1 per token, and attention costs width / break_even per token.

    Args:
        forest: Trees to pack.
        token_budget: Most tokens of a batch. A single row that is longer still makes a batch.
        break_even: Row width at which attention costs as much as the matrix products of a layer.
    """
    widths = sorted({min(width, _round_down(token_budget)) for width in _WIDTHS})
    return min(
        (make_batches(forest, width=width, token_budget=token_budget) for width in widths),
        key=lambda batches: sum(batch.n_tokens * (1 + batch.width / break_even) for batch in batches),
    )


def padding(forest: Forest, batches: Sequence[Batch]) -> float:
    """Return the fraction of the computed tokens that are padding."""
    return 1 - int(forest.sizes.sum()) / sum(batch.n_tokens for batch in batches)


def make_batches(forest: Forest, *, width: int, token_budget: int) -> list[Batch]:
    """Pack trees into rows and rows into batches, widest batch first.

    Args:
        forest: Trees to pack.
        width: Most tokens of the trees in a row. A longer tree opens a row of its own length.
        token_budget: Most tokens of a batch, padding included. A row that is longer makes a batch of its own.
    """
    sizes = forest.sizes.tolist()
    rows = []
    for trees in best_fit_rows(sizes, width):
        is_causal = len(trees) == 1 and bool(forest.is_chain[trees[0]])
        rows.append((is_causal, _round_up(sum(sizes[tree] for tree in trees)), tuple(trees)))
    rows.sort(key=lambda row: (-row[1], row[0], row[2]))
    batches: list[Batch] = []
    for is_causal in (False, True):
        batches += _batch([row[1:] for row in rows if row[0] == is_causal], is_causal, token_budget)
    return sorted(batches, key=lambda batch: -batch.width)


def _batch(rows: Sequence[tuple[int, tuple[int, ...]]], is_causal: bool, token_budget: int) -> Iterator[Batch]:
    """Group rows of similar widths into batches. `rows` has the width and trees of each row, widest row first."""
    batch: list[tuple[int, ...]] = []
    width = 0
    for own_width, trees in rows:
        is_full = (len(batch) + 1) * width > token_budget
        if batch and (is_full or own_width < _MIN_WIDTH_FRACTION * width):
            yield Batch(tuple(batch), width, is_causal)
            batch = []
        if not batch:
            width = own_width
        batch.append(trees)
    if batch:
        yield Batch(tuple(batch), width, is_causal)


def to_arrays(forest: Forest, batch: Batch) -> BatchArrays:
    """Write the trees of a batch into arrays."""
    nodes = np.zeros((3, len(batch.rows), batch.width), dtype=np.int32)
    nodes[2] = np.arange(1, batch.width + 1)
    positions, targets, requests = [], [], []
    for row, trees in enumerate(batch.rows):
        begin = 0
        for tree in trees:
            source = slice(forest.first[tree], forest.first[tree + 1])
            place = nodes[:, row, begin : begin + source.stop - source.start]
            place[0], place[1], place[2] = forest.tokens[source], forest.depth[source], forest.end[source] + begin
            scored = slice(forest.first_scored[tree], forest.first_scored[tree + 1])
            positions.append(forest.node[scored] + (row * batch.width + begin))
            targets.append(forest.target[scored])
            requests.append(forest.request[scored])
            begin += source.stop - source.start
    flat = np.concatenate(positions)
    order = np.argsort(flat, kind="stable")
    position, index = np.unique(flat[order], return_inverse=True)
    return BatchArrays(nodes, position, index, np.concatenate(targets)[order], np.concatenate(requests)[order])


def _round_down(size: int) -> int:
    return max(_STEP, size // _STEP * _STEP)


def _round_up(size: int) -> int:
    return -(-size // _STEP) * _STEP
