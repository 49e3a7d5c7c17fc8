"""Size of a gradient pass that fits in memory: layers whose sums are held at once, and sequences per forward pass.

On a GPU, one sequence is run forward and backward to measure its peak memory. The remaining free memory holds the sums
of as many layers as fit. Memory that is left after that allows more sequences per forward pass. On the CPU, and for
passes without gradients, memory is not measured: a pass takes all layers unless `layers_per_pass` is set.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from espalier.calibration.gradients import max_batch_size, run_forward_backward
from espalier.errors import UserError
from espalier.models.decoder import projections
from espalier.planning.criteria import Statistic, needs_backward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKEN_BUDGETS = {"cpu": 1024, "cuda": 4096}
"""Most tokens per forward pass if the config sets none. Larger passes are not faster (docs/benchmarks.md)."""
RESERVE = 0.1  # fraction of the free memory left unused, for fragmentation of the allocator
GIB = 1024**3
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassSettings:
    """Settings of a pass that affect speed and memory only, not its results.

    Attributes:
        token_budget: Most tokens per forward pass. A single sequence that is longer still runs. None chooses by device
            and free memory.
        layers_per_pass: Layers whose sums are held at once. None takes as many as fit.
        checkpointing: Whether the backward pass recomputes activations instead of keeping them in memory.
    """

    token_budget: int | None = None
    layers_per_pass: int | None = None
    checkpointing: bool = False


@dataclass(frozen=True)
class PassSize:
    """Pass size: layers whose sums are held at once, and sequences per forward pass."""

    layers: int
    batch_size: int

    def smaller(self) -> PassSize | None:
        """Return the size with half the sequences, or half the layers at one sequence. None at the smallest size."""
        if self.batch_size > 1:
            return PassSize(self.layers, self.batch_size // 2)
        return PassSize(self.layers // 2, 1) if self.layers > 1 else None


def choose_pass_size(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    needs: Collection[Statistic],
    settings: PassSettings,
    *,
    n_between: int | None = None,
) -> PassSize:
    """Choose the size of a pass and log it.

    The size is never larger than the pass can use. Halving it therefore always reduces memory.

    Args:
        model: A causal language model.
        sequences: Token ids, (n_samples, seq_len).
        needs: Sums that the pass accumulates.
        settings: Memory settings of the pass.
        n_between: Largest number of sequences between two snapshots. A forward pass does not cross a snapshot. None
            means all sequences.

    Raises:
        UserError: If one sequence and one layer (or the configured `layers_per_pass`) do not fit in GPU memory.
    """
    n_layers = 1 + max(projection.layer for projection in projections(model))
    token_budget = settings.token_budget or TOKEN_BUDGETS["cpu" if model.device.type == "cpu" else "cuda"]
    batch_size = min(token_budget // sequences.shape[1], max_batch_size(needs, n_between or len(sequences)))
    wanted = PassSize(min(settings.layers_per_pass or n_layers, n_layers), max(1, batch_size))
    if model.device.type == "cuda" and needs_backward(needs):
        devices = {parameter.device for parameter in model.parameters()}
        free = int((1 - RESERVE) * min(_free_gpu_bytes(device) for device in devices))
        size = fit_to_memory(
            wanted,
            free_bytes=free,
            bytes_per_layer=bytes_per_layer(model, needs),
            bytes_per_sequence=_bytes_per_sequence(model, sequences[:1], settings),
            layers_are_set=settings.layers_per_pass is not None,
        )
    else:
        size = wanted
    logger.info(
        "layers_per_pass %d of %d, %d sequences of %d tokens at a time",
        size.layers, n_layers, size.batch_size, sequences.shape[1],
    )  # fmt: skip
    return size


def fit_to_memory(
    wanted: PassSize, *, free_bytes: int, bytes_per_layer: int, bytes_per_sequence: int, layers_are_set: bool = False
) -> PassSize:
    """Reduce a pass size until it fits in memory.

    First take as many layers as fit together with one sequence, then as many sequences as fit with these layers.

    Args:
        wanted: Largest size that the pass can use.
        free_bytes: Free memory.
        bytes_per_layer: Memory of the sums of one layer.
        bytes_per_sequence: Memory of one sequence, forward and backward.
        layers_are_set: Whether the config sets `layers_per_pass`. The number of layers is then not reduced.

    Raises:
        UserError: If one layer (or the configured `layers_per_pass`) does not fit together with one sequence.
    """
    layers = (
        wanted.layers if layers_are_set else min(wanted.layers, (free_bytes - bytes_per_sequence) // bytes_per_layer)
    )
    batch_size = min(wanted.batch_size, (free_bytes - layers * bytes_per_layer) // bytes_per_sequence)
    if layers < 1 or batch_size < 1:
        needed = (max(layers, 1) * bytes_per_layer + bytes_per_sequence) / GIB
        raise out_of_memory_error(
            f"{needed:.1f} GiB are needed beside the weights, {free_bytes / GIB:.1f} GiB are free"
        )
    return PassSize(layers, batch_size)


def out_of_memory_error(numbers: str) -> UserError:
    """Return the error for a pass that does not fit in GPU memory at its smallest size."""
    return UserError(
        f"gradients: GPU memory exhausted: {numbers}; set gradients.layers_per_pass: 1 and gradients.checkpointing: "
        "true, use a shorter taylor_seq_len, or give the model more GPUs (models[].gpus)"
    )


def bytes_per_layer(model: PreTrainedModel, needs: Collection[Statistic]) -> int:
    """Return the bytes of the float32 gradient sums of the largest layer. Sums of inputs are small and not counted."""
    n_params: dict[int, int] = {}
    for projection in projections(model):
        size = projection.weight.numel() + (0 if projection.bias is None else projection.bias.numel())
        n_params[projection.layer] = n_params.get(projection.layer, 0) + size
    return 4 * len(set(needs) - {"input_norm"}) * max(n_params.values())


def _free_gpu_bytes(device: torch.device) -> int:
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def _bytes_per_sequence(model: PreTrainedModel, sequence: torch.Tensor, settings: PassSettings) -> int:
    """Measure the peak memory of one sequence, forward and backward, on the device that needs most.

    Raises:
        UserError: If the GPU is out of memory with one sequence.
    """
    devices = {parameter.device for parameter in model.parameters()}
    before = {device: torch.cuda.memory_allocated(device) for device in devices}
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        run_forward_backward(model, sequence, checkpointing=settings.checkpointing)
    except torch.OutOfMemoryError:
        raise out_of_memory_error(f"not one sequence of {sequence.shape[1]} tokens fits") from None
    return int(max(torch.cuda.max_memory_allocated(device) - before[device] for device in devices))
