"""Packing: trees into rows, rows into batches, batches into arrays.

Short rows make attention and its mask cheap, since both grow with the square of the width; several rows make the
matrix products large. Rows are filled by best-fit decreasing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.scoring.requests import Integers
from espalier.scoring.tree import Forest

_STEP = 8
"""Widths are multiples of it: kernels of GPUs read masks in such pieces."""
_ALIKE = 0.9
"""A row narrower than this share of a batch's width starts the next batch."""
_WIDTHS = (128, 256, 512, 1024)


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    Attributes:
        rows: Trees of each row.
        width: Tokens of a row, with padding.
        is_causal: Whether each row is one chain, so that plain causal attention serves.
    """

    rows: tuple[tuple[int, ...], ...]
    width: int
    is_causal: bool

    @property
    def n_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return len(self.rows) * self.width


@dataclass(frozen=True)
class Arrays:
    """A batch on the host.

    Attributes:
        nodes: Token, depth and end of each position: (3, rows, width). Padding sees only itself.
        position: Flat positions whose logits are needed, increasing: (positions,).
        index: Which of these predicts each scored token, increasing: (scored,).
        target: The scored tokens: (scored,).
        request: The requests that they belong to: (scored,).
    """

    nodes: Integers
    position: Integers
    index: Integers
    target: Integers
    request: Integers


def pack(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Put items into rows of `width`; an item that is longer gets a row of its own length.

    Returns:
        Items of each row. Best-fit decreasing: each goes where least room is left over.
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # by room left
    rooms = 0  # bit r is set while a row has room r
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[item]
        fitting = rooms >> size
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


def choose_batches(forest: Forest, *, token_budget: int, balance: float) -> list[Batch]:
    """Pack trees into rows of the width that costs least: narrow rows attend to less, wide rows waste less.

    Args:
        forest: The trees.
        token_budget: Upper bound on tokens of a batch.
        balance: Width at which attention costs as much as the matrix products of a layer.
    """
    widths = sorted({min(width, _round_down(token_budget)) for width in _WIDTHS})
    return min(
        (make_batches(forest, width=width, token_budget=token_budget) for width in widths),
        key=lambda batches: sum(batch.n_tokens * (1 + batch.width / balance) for batch in batches),
    )


def padding(forest: Forest, batches: Sequence[Batch]) -> float:
    """Return the share of computed tokens that are padding."""
    return 1 - int(forest.sizes.sum()) / sum(batch.n_tokens for batch in batches)


def make_batches(forest: Forest, *, width: int, token_budget: int) -> list[Batch]:
    """Pack trees into batches of at most `token_budget` tokens, widest first; a longer row runs alone."""
    sizes = forest.sizes.tolist()
    rows = []
    for trees in pack(sizes, width):
        is_causal = len(trees) == 1 and bool(forest.is_chain[trees[0]])
        rows.append((is_causal, _round_up(sum(sizes[tree] for tree in trees)), tuple(trees)))
    rows.sort(key=lambda row: (-row[1], row[0], row[2]))
    batches: list[Batch] = []
    for is_causal in (False, True):
        batches += _batch([row[1:] for row in rows if row[0] == is_causal], is_causal, token_budget)
    return sorted(batches, key=lambda batch: -batch.width)


def _batch(rows: Sequence[tuple[int, tuple[int, ...]]], is_causal: bool, token_budget: int) -> Iterator[Batch]:
    """Group rows that are sorted by width; rows of one batch are about equally wide."""
    batch: list[tuple[int, ...]] = []
    width = 0
    for own_width, trees in rows:
        is_full = (len(batch) + 1) * width > token_budget
        if batch and (is_full or own_width < _ALIKE * width):
            yield Batch(tuple(batch), width, is_causal)
            batch = []
        if not batch:
            width = own_width
        batch.append(trees)
    if batch:
        yield Batch(tuple(batch), width, is_causal)


def fill(forest: Forest, batch: Batch) -> Arrays:
    """Write a batch into arrays."""
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
    return Arrays(nodes, position, index, np.concatenate(targets)[order], np.concatenate(requests)[order])


def _round_down(size: int) -> int:
    return max(_STEP, size // _STEP * _STEP)


def _round_up(size: int) -> int:
    return -(-size // _STEP) * _STEP
