"""The training loop: AdamW, warm-up and cosine, clipped gradients, micro-batches that fit the memory.

A plain loop rather than transformers' Trainer: a step that runs out of GPU memory is done again in smaller parts with
the same batch, a loss that is not finite stops the job with its step, and nothing is written on the way.

    loss of a step = mean over the sequences of its batch of their mean next-token loss (nats)

Parts of a batch are summed before the optimiser steps, so how a batch is cut changes rounding and dropout only.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from espalier.calibration.gradients import checkpointed, sequence_losses
from espalier.errors import UserError
from espalier.models.context import context_length
from espalier.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: How often each sequence is seen.
        batch_size: Sequences of a step.
        learning_rate: Highest rate.
        warmup_fraction: Share of the steps during which the rate rises from 0.
        max_grad_norm: Gradients are scaled down to this L2 norm.
        seed: Seed of the order of sequences and of dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    max_grad_norm: float
    seed: int


@dataclass(frozen=True)
class Trained:
    """What a training was like.

    Attributes:
        losses: Loss of each step (nats).
        n_tokens: Tokens seen, over all epochs.
        n_trainable: Parameters that were trained.
        rows: Sequences of a forward pass at the end.
        seconds: Time of the loop.
    """

    losses: list[float]
    n_tokens: int
    n_trainable: int
    rows: int
    seconds: float


def fine_tune(
    model: PreTrainedModel, sequences: torch.Tensor, schedule: Schedule, *, token_budget: int, checkpointing: bool
) -> Trained:
    """Train the parameters of a model that ask for gradients, in place.

    Args:
        model: A causal language model, such as one with adapters.
        sequences: Token ids, (n_sequences, seq_len).
        schedule: How long and how fast.
        token_budget: Upper bound on tokens of a forward pass (one longer sequence still runs). Halved when the GPU has
            too little memory.
        checkpointing: Whether layers compute their activations again in the backward pass: less memory, more time.

    Raises:
        UserError: If sequences are longer than the model's context, a loss or gradient is not finite, or GPU memory is
            exhausted by a single sequence.
    """
    check_context(model, sequences.shape[1])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=schedule.learning_rate, weight_decay=0.0)
    batches = list(batches_of(len(sequences), schedule))
    rates = get_cosine_schedule_with_warmup(optimizer, round(schedule.warmup_fraction * len(batches)), len(batches))
    rows = max(1, min(token_budget // sequences.shape[1], schedule.batch_size))
    losses: list[float] = []
    start = time.perf_counter()
    with (
        _training(model, checkpointing=checkpointing),
        _repeatable(),
        Progress("recovery", total=schedule.epochs * sequences.numel(), unit="tokens") as progress,
    ):
        for step, numbers in enumerate(batches):
            seed = schedule.seed * 1_000_003 + step  # of its dropout, so that a repeated step repeats it
            loss, rows = _gradient(model, sequences[numbers], rows, seed)
            _check_finite(loss, "loss", step, len(batches))
            norm = nn.utils.clip_grad_norm_(trained, schedule.max_grad_norm)
            _check_finite(float(norm), "gradient", step, len(batches))
            optimizer.step()
            rates.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            progress.advance(len(numbers) * sequences.shape[1], loss=loss)
    n_trainable = sum(parameter.numel() for parameter in trained)
    seconds = time.perf_counter() - start
    return Trained(losses, schedule.epochs * sequences.numel(), n_trainable, rows, seconds)


def batches_of(n_sequences: int, schedule: Schedule) -> Iterator[torch.Tensor]:
    """Yield the numbers of the sequences of each step; every epoch has an order of its own, its last batch the rest."""
    generator = torch.Generator().manual_seed(schedule.seed)
    for _ in range(schedule.epochs):
        yield from torch.randperm(n_sequences, generator=generator).split(schedule.batch_size)


def check_context(model: PreTrainedModel, seq_len: int) -> None:
    """Refuse sequences longer than the model's context.

    Raises:
        UserError: With both numbers.
    """
    limit = context_length(model)
    if seq_len > limit:
        raise UserError(f"recovery.seq_len: got {seq_len}, but the model's context is {limit} tokens; give at most it")


def _gradient(model: PreTrainedModel, batch: torch.Tensor, rows: int, seed: int) -> tuple[float, int]:
    """Leave the gradient of a batch in the parameters; return its loss and how many rows fitted at once."""
    while True:
        try:
            return _in_parts(model, batch, rows, seed), rows
        except torch.OutOfMemoryError:
            pass  # the traceback holds the failed pass, so memory is free only after this block
        model.zero_grad(set_to_none=True)
        rows = _halved(min(rows, len(batch)), batch.shape[1])


def _in_parts(model: PreTrainedModel, batch: torch.Tensor, rows: int, seed: int) -> float:
    torch.manual_seed(seed)
    total = 0.0
    for part in batch.split(rows):
        loss = sequence_losses(model, part.to(model.device)).sum() / len(batch)
        loss.backward()
        total += loss.item()
    return total


def _halved(rows: int, seq_len: int) -> int:
    if rows == 1:
        raise UserError(
            f"recovery: GPU memory exhausted by one sequence of {seq_len} tokens; use a shorter recovery.seq_len, "
            "recovery.checkpointing: true, or give the model more GPUs (models[].gpus)"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of GPU memory; the step once more with %d sequences at a time", rows // 2)
    return rows // 2


def _check_finite(value: float, what: str, step: int, n_steps: int) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"recovery: the {what} is not finite at step {step + 1} of {n_steps}; give a smaller "
            "recovery.learning_rate, or recovery.dtype: float32"
        )


@contextmanager
def _training(model: PreTrainedModel, *, checkpointing: bool) -> Iterator[None]:
    """Put a model into training mode, and back."""
    model.train()
    try:
        with checkpointed(model.get_decoder().layers if checkpointing else ()):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()


@contextmanager
def _repeatable() -> Iterator[None]:
    """Ask for deterministic kernels where there are any, and leave the generators of the process as they were."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
