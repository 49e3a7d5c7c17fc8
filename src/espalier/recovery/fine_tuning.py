"""The training loop of recovery: AdamW, linear warm-up with cosine decay, gradient clipping, micro-batches.

The loop does not use transformers' Trainer, for three reasons. A step that runs out of GPU memory is retried with the
same batch in smaller micro-batches. A loss that is not finite stops the job, and the error names the step. Training
writes no checkpoints.

    loss of a step = mean over the sequences of its batch of their losses (nats)

The loss of a sequence is its mean next-token loss, unless the caller gives another function, as distillation does.

Gradients of the micro-batches are accumulated before the optimiser step. The micro-batch size therefore affects
rounding and dropout only.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from espalier.calibration.gradients import gradient_checkpointing, sequence_losses
from espalier.errors import UserError
from espalier.models.context import check_fits_context
from espalier.progress import Progress

logger = logging.getLogger(__name__)
SequenceLosses = Callable[[PreTrainedModel, torch.Tensor], torch.Tensor]
"""Function of a model and token ids, (n_sequences, seq_len), that returns the loss of each sequence, (n_sequences,)."""


@dataclass(frozen=True)
class TrainingSchedule:
    """Length, batch size and learning rate of a training.

    Attributes:
        epochs: Passes over all sequences.
        batch_size: Sequences per optimiser step.
        learning_rate: Peak learning rate, reached after warm-up.
        warmup_fraction: Share of the steps during which the learning rate rises linearly from 0.
        max_grad_norm: Gradients with a larger L2 norm are scaled down to this norm.
        seed: Seed of the order of sequences and of dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    max_grad_norm: float
    seed: int


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a finished training.

    Attributes:
        losses: Loss of each step (nats).
        n_tokens: Tokens trained on, over all epochs.
        n_trainable: Number of trained parameters.
        micro_batch_size: Micro-batch size at the end: sequences per forward pass.
        seconds: Wall time of the loop.
    """

    losses: list[float]
    n_tokens: int
    n_trainable: int
    micro_batch_size: int
    seconds: float


def fine_tune(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    schedule: TrainingSchedule,
    *,
    token_budget: int,
    checkpointing: bool,
    losses_of: SequenceLosses | None = None,
) -> TrainingRecord:
    """Train the parameters of a model that have `requires_grad`, in place.

    Args:
        model: A causal language model, such as a model with adapters.
        sequences: Token ids, (n_sequences, seq_len).
        schedule: Length, batch size and learning rate.
        token_budget: Maximum number of tokens per forward pass; a single longer sequence still runs. When the GPU runs
            out of memory, the micro-batch size is halved.
        checkpointing: Whether to use gradient checkpointing: less memory, more time.
        losses_of: Function that computes the loss of each sequence. None means its mean next-token loss.

    Raises:
        UserError: If the sequences are longer than the model's context, if a loss or gradient norm is not finite, or
            if the GPU runs out of memory with a single sequence.
    """
    check_fits_context(model, sequences.shape[1], "recovery.seq_len")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=schedule.learning_rate, weight_decay=0.0)
    batches = list(batches_of(len(sequences), schedule))
    scheduler = get_cosine_schedule_with_warmup(optimizer, round(schedule.warmup_fraction * len(batches)), len(batches))
    micro_batch_size = max(1, min(token_budget // sequences.shape[1], schedule.batch_size))
    losses: list[float] = []
    start = time.perf_counter()
    with (
        _training_mode(model, checkpointing=checkpointing),
        _deterministic(),
        Progress("recovery", total=schedule.epochs * sequences.numel(), unit="tokens") as progress,
    ):
        for step, indices in enumerate(batches):
            seed = schedule.seed * 1_000_003 + step  # a retried step must draw the same dropout
            loss, micro_batch_size = _gradient(model, sequences[indices], micro_batch_size, seed, losses_of)
            _check_step_finite(loss, "loss", step, len(batches))
            norm = nn.utils.clip_grad_norm_(trained, schedule.max_grad_norm)
            _check_step_finite(float(norm), "gradient", step, len(batches))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            progress.advance(len(indices) * sequences.shape[1], loss=loss)
    n_trainable = sum(parameter.numel() for parameter in trained)
    seconds = time.perf_counter() - start
    return TrainingRecord(losses, schedule.epochs * sequences.numel(), n_trainable, micro_batch_size, seconds)


def batches_of(n_sequences: int, schedule: TrainingSchedule) -> Iterator[torch.Tensor]:
    """Yield the sequence indices of each step. Each epoch is shuffled separately; its last batch may be smaller."""
    generator = torch.Generator().manual_seed(schedule.seed)
    for _ in range(schedule.epochs):
        yield from torch.randperm(n_sequences, generator=generator).split(schedule.batch_size)


def _gradient(
    model: PreTrainedModel,
    batch: torch.Tensor,
    micro_batch_size: int,
    seed: int,
    losses_of: SequenceLosses | None = None,
) -> tuple[float, int]:
    """Accumulate the gradient of a batch; return its loss and the micro-batch size that fitted into memory."""
    while True:
        try:
            return _accumulate_micro_batches(model, batch, micro_batch_size, seed, losses_of), micro_batch_size
        except torch.OutOfMemoryError:
            pass  # the traceback references the failed pass, so its memory is free only after this block
        model.zero_grad(set_to_none=True)
        micro_batch_size = _halved(min(micro_batch_size, len(batch)), batch.shape[1])


def _accumulate_micro_batches(
    model: PreTrainedModel, batch: torch.Tensor, micro_batch_size: int, seed: int, losses_of: SequenceLosses | None
) -> float:
    torch.manual_seed(seed)
    losses_of = losses_of or sequence_losses
    total = 0.0
    for micro_batch in batch.split(micro_batch_size):
        loss = losses_of(model, micro_batch.to(model.device)).sum() / len(batch)
        loss.backward()
        total += loss.item()
    return total


def _halved(micro_batch_size: int, seq_len: int) -> int:
    if micro_batch_size == 1:
        raise UserError(
            f"recovery: GPU memory exhausted by one sequence of {seq_len} tokens; use a shorter recovery.seq_len, "
            "recovery.checkpointing: true, or give the model more GPUs (models[].gpus)"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of GPU memory; the step once more with %d sequences at a time", micro_batch_size // 2)
    return micro_batch_size // 2


def _check_step_finite(value: float, what: str, step: int, n_steps: int) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"recovery: the {what} is not finite at step {step + 1} of {n_steps}; give a smaller "
            "recovery.learning_rate, or recovery.dtype: float32"
        )


@contextmanager
def _training_mode(model: PreTrainedModel, *, checkpointing: bool) -> Iterator[None]:
    """Switch a model to training mode; on exit, clear its gradients and switch back to eval mode."""
    model.train()
    try:
        with gradient_checkpointing(model.get_decoder().layers if checkpointing else ()):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic kernels where they exist; on exit, restore the settings and random generators of torch."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
