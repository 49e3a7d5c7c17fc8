"""How much of a pass fits the device: layers whose sums are kept at once, and sequences in a forward pass.

On a GPU, one sequence is run forward and backward and its peak memory measured; what is free beyond it goes to the sums
of as many layers as fit, and the rest to more sequences at a time. On the CPU all layers are taken at once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from espalier.calibration.gradients import most_rows, run_once
from espalier.errors import UserError
from espalier.models.decoder import projections
from espalier.planning.criteria import Need, takes_gradients

RESERVE = 0.1  # share of the free memory left to the allocator's fragments
GIB = 1024**3
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassSettings:
    """How a pass is run; it changes what is held in memory, not what is computed.

    Attributes:
        token_budget: Upper bound on tokens in a forward pass (one longer sequence still runs).
        layers_per_pass: Layers whose sums are kept at once; None is as many as fit.
        checkpointing: Whether layers compute activations again instead of keeping them.
    """

    token_budget: int
    layers_per_pass: int | None = None
    checkpointing: bool = False


@dataclass(frozen=True)
class PassSize:
    """Pass size: layers whose sums are held at once, and sequences per forward pass."""

    layers: int
    rows: int

    def smaller(self) -> PassSize | None:
        """Halve the sequences, or when there is one, the layers; None at the smallest."""
        if self.rows > 1:
            return PassSize(self.layers, self.rows // 2)
        return PassSize(self.layers // 2, 1) if self.layers > 1 else None


def pass_size(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    needs: Collection[Need],
    settings: PassSettings,
    *,
    n_between: int | None = None,
) -> PassSize:
    """Choose the size of a pass, and log it. It is never larger than what a pass can use, so that less is less.

    Args:
        model: A causal language model.
        sequences: Token ids, (n_samples, seq_len).
        needs: What the pass sums.
        settings: How it is run.
        n_between: Most sequences from one snapshot to the next, across which no forward pass reaches; None is all.

    Raises:
        UserError: If not even one sequence and one layer fit.
    """
    n_layers = 1 + max(projection.layer for projection in projections(model))
    rows = min(settings.token_budget // sequences.shape[1], most_rows(needs, n_between or len(sequences)))
    wanted = PassSize(min(settings.layers_per_pass or n_layers, n_layers), max(1, rows))
    if model.device.type == "cuda" and takes_gradients(needs):
        devices = {parameter.device for parameter in model.parameters()}
        free = int((1 - RESERVE) * min(_free_bytes(device) for device in devices))
        size = fit(
            wanted,
            free_bytes=free,
            bytes_per_layer=bytes_per_layer(model, needs),
            bytes_per_row=_bytes_per_row(model, sequences[:1], settings),
            layers_are_set=settings.layers_per_pass is not None,
        )
    else:
        size = wanted
    logger.info(
        "layers_per_pass %d of %d, %d sequences of %d tokens at a time",
        size.layers, n_layers, size.rows, sequences.shape[1],
    )  # fmt: skip
    return size


def fit(
    wanted: PassSize, *, free_bytes: int, bytes_per_layer: int, bytes_per_row: int, layers_are_set: bool = False
) -> PassSize:
    """Fit a pass to memory: first as many layers as go beside one sequence, then more sequences.

    Raises:
        UserError: If one layer (or, when the config sets `layers_per_pass`, as many) does not fit beside one sequence.
    """
    layers = wanted.layers if layers_are_set else min(wanted.layers, (free_bytes - bytes_per_row) // bytes_per_layer)
    rows = min(wanted.rows, (free_bytes - layers * bytes_per_layer) // bytes_per_row)
    if layers < 1 or rows < 1:
        needed = (max(layers, 1) * bytes_per_layer + bytes_per_row) / GIB
        raise out_of_memory(f"{needed:.1f} GiB are needed beside the weights, {free_bytes / GIB:.1f} GiB are free")
    return PassSize(layers, rows)


def out_of_memory(numbers: str) -> UserError:
    """Make the error of a pass that does not fit at its smallest."""
    return UserError(
        f"gradients: GPU memory exhausted: {numbers}; set gradients.layers_per_pass: 1 and gradients.checkpointing: "
        "true, use a shorter taylor_seq_len, or give the model more GPUs (models[].gpus)"
    )


def bytes_per_layer(model: PreTrainedModel, needs: Collection[Need]) -> int:
    """Return the size of the float32 sums of the largest layer."""
    n_params: dict[int, int] = {}
    for projection in projections(model):
        size = projection.weight.numel() + (0 if projection.bias is None else projection.bias.numel())
        n_params[projection.layer] = n_params.get(projection.layer, 0) + size
    return 4 * len(set(needs) - {"input_norm"}) * max(n_params.values())


def _free_bytes(device: torch.device) -> int:
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def _bytes_per_row(model: PreTrainedModel, sequence: torch.Tensor, settings: PassSettings) -> int:
    """Measure the peak memory of one sequence, forward and backward, on the device where it is largest."""
    devices = {parameter.device for parameter in model.parameters()}
    before = {device: torch.cuda.memory_allocated(device) for device in devices}
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        run_once(model, sequence, checkpointing=settings.checkpointing)
    except torch.OutOfMemoryError:
        raise out_of_memory(f"not one sequence of {sequence.shape[1]} tokens fits") from None
    return int(max(torch.cuda.max_memory_allocated(device) - before[device] for device in devices))
