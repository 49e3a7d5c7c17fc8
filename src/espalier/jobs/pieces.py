"""A job does its own piece of work on a model, and then other pieces that wait for the same model.

Starting Python and loading a model takes longer than most pieces, so one job does several. Each piece is claimed
separately, and stored when it is finished. Parallel jobs therefore share the work of a model, and a killed job loses
only its current piece. The job of a piece that is in the store already hands over its files and ends. It loads no model
and needs no GPU.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from espalier.errors import UserError
from espalier.files import write_json
from espalier.jobs.log import copy_to_log, only_in_file, piece_log
from espalier.models.devices import SCHEDULERS
from espalier.results.store import LOG, TIMING, Store
from espalier.study.scheduler import MODEL_JOBS
from espalier.study.stopping import is_stopping

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A piece of work on a model: a pass, a measurement of priors or an evaluation.

    Attributes:
        name: Name for messages.
        key: Key in the store.
        make: Does the work and writes its files into a folder.
        job: Name of its own job, for the lines on the terminal.
        kind: What it is, for messages.
    """

    name: str
    key: str
    make: Callable[[Path], None]
    job: str
    kind: str = "pass"


def make_with_others(
    store: Store, own: Piece, others: Callable[[], Iterable[Piece]] = tuple, *, at_most: int = 1,
    only_hands_over: bool = False,
) -> None:  # fmt: skip
    """Do a piece of work and store it, then others that have not been done yet.

    If the store already has this piece, return at once and do no others.

    Args:
        store: Store of the model.
        own: The piece that the job is for.
        others: Returns the other pieces of the model that may wait. It is called only if `at_most` allows another.
        at_most: Most pieces to do in this process, this one included.
        only_hands_over: Whether this job has the resources to hand over files only (see `only_hands_over`).

    Raises:
        UserError: If `only_hands_over` and the store does not have this piece.
        Exception: Any error of this piece. Errors of the others are only logged, because their own jobs report them.
    """
    if store.has(own.key):
        copy_to_log(store.folder / own.key / LOG)
        only_in_file.info("the result was in the store already")
        return
    if only_hands_over:
        raise UserError(
            f"{own.name}: the store has no sound result, and this job has no device to compute it; run again"
        )
    with store.claim(own.key, wait=True):
        if not store.has(own.key):  # another job may have finished it while this job waited for the claim
            make_piece(store, own, beside=False)
    if at_most <= 1:
        return
    waiting = (piece for piece in others() if not _is_stored(store, piece))
    for piece in islice(waiting, at_most - 1):
        if is_stopping():
            logger.info("the workflow was told to stop, so no other %s is begun", own.kind)
            return
        _make_or_log(store, piece)


def only_hands_over(resources: Mapping[str, Any]) -> bool:
    """Return whether a job of a cluster got no device and little memory, because the store has its result.

    On one machine, the job can still lock a GPU and do the work, if the result turns out to be damaged.

    Args:
        resources: Resources of the job, by name.
    """
    return resources.get(MODEL_JOBS) == 0 and any(name in os.environ for name in SCHEDULERS)


def make_piece(store: Store, piece: Piece, *, beside: bool) -> None:
    """Do a piece of work and store it, with its log and its time. The caller holds its claim.

    Args:
        store: Store of the model.
        piece: The piece.
        beside: Whether the piece belongs to another job.
    """
    start = time.monotonic()
    with store.new_entry(piece.key) as folder:
        with piece_log(folder / LOG, piece.job, beside=beside):
            piece.make(folder)
        write_json(folder / TIMING, {"seconds": time.monotonic() - start})


def _is_stored(store: Store, piece: Piece) -> bool:
    """Return whether to skip another piece, because the store has it or its entry cannot be read now.

    In the second case, the piece's own job reports the error.
    """
    try:
        return store.has(piece.key)
    except OSError as error:
        logger.warning("%s: cannot be read now and is left to its own job: %s", store.folder / piece.key, error)
        return True


def _make_or_log(store: Store, piece: Piece) -> None:
    """Do another piece, unless another job has claimed or finished it.

    A failure is only logged, because the piece's own job reports it.
    """
    try:
        with store.claim(piece.key, wait=False) as free:
            if free and not store.has(piece.key):  # another job may have finished it before the claim
                only_in_file.info("also %s, which waits for the same model", piece.name)
                make_piece(store, piece, beside=True)
    except Exception as error:  # noqa: BLE001 (no failure of another piece may end this job)
        logger.warning("%s, done beside, failed: %s", piece.name, error)
