"""Measurement of importances and gradient statistics, with results for several sample counts from one pass."""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from espalier.calibration.experts import counting_tokens, log_unreached, recording_outputs
from espalier.calibration.gradient_statistics import Moments, pool
from espalier.calibration.gradients import Sums, accumulate, make_sums
from espalier.calibration.pass_size import PassSettings, PassSize, choose_pass_size, out_of_memory_error
from espalier.calibration.reductions import ReducedParameter, reduce_parameters
from espalier.errors import UserError
from espalier.models.context import check_fits_context
from espalier.models.decoder import ROUTER, Projection, decoder_layers, n_kv_groups
from espalier.models.experts import has_experts
from espalier.planning.criteria import CRITERIA
from espalier.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GroupImportance = dict[tuple[int, str], npt.NDArray[np.float64]]
Columns = dict[str, npt.NDArray[np.generic]]
EXPERT_ROWS = "experts"
"""`block` of the rows of experts in the importance table."""
NO_SAMPLES = 0  # sample count in tables of criteria that read no text
logger = logging.getLogger(__name__)


def group_importance(
    sums: Sequence[Sums], reduced: Sequence[ReducedParameter], n_kv_groups: Mapping[int, int]
) -> GroupImportance:
    """Sum a criterion over the parameters of each group.

    Args:
        sums: Sums of the parameters.
        reduced: Result of `reduce_parameters` for these sums.
        n_kv_groups: Number of KV groups of each layer, by its index.

    Returns:
        Importance of the groups of each (layer, block), float64, (n_kv_groups,) or (n_mlp_channels,).
    """
    importance: GroupImportance = {}
    for each, found in zip(sums, reduced, strict=True):
        projection = each.projection
        if found.features is None:
            continue
        if projection.expert is not None:
            _add_expert(importance, projection, found.features)
            continue
        parts = projection.parts or (len(found.features),)
        n_groups = n_kv_groups[projection.layer] if projection.block == "attention" else parts[-1]
        # In each part, the features of a group are consecutive (see `espalier.models.decoder`).
        per_part = np.split(found.features, np.cumsum(parts)[:-1])
        per_group = np.sum([features.reshape(n_groups, -1).sum(axis=1) for features in per_part], axis=0)
        key = (projection.layer, projection.block)
        importance[key] = importance.get(key, np.zeros(n_groups)) + per_group
    return importance


def _add_expert(importance: GroupImportance, projection: Projection, features: npt.NDArray[np.float64]) -> None:
    """Add the features of a projection of an expert, or of the router, to the experts and channels of its layer.

    The channels of all experts of a layer are in one array, expert by expert.
    """
    experts = importance.setdefault((projection.layer, EXPERT_ROWS), np.zeros(projection.n_experts))
    if projection.expert == ROUTER:
        experts += features
        return
    n_channels = projection.parts[-1] if projection.parts else len(features)
    channels = importance.setdefault((projection.layer, "mlp"), np.zeros(projection.n_experts * n_channels))
    channels.reshape(-1, n_channels)[projection.expert] += features.reshape(-1, n_channels).sum(axis=0)
    experts[projection.expert] += features.sum()


def importance_rows(importance: GroupImportance, n_samples: int) -> Columns:
    """Return the columns of the importance table, one row per group: by layer, block (attention first) and group.

    A layer with experts has a row for each expert, and a row for each channel of each expert.
    """
    keys = sorted(importance, key=lambda key: (key[0], ("attention", "mlp", EXPERT_ROWS).index(key[1])))
    sizes = [len(importance[key]) for key in keys]
    return {
        "n_samples": np.full(sum(sizes), n_samples),
        "layer": np.repeat([layer for layer, _ in keys], sizes),
        "block": np.repeat([block for _, block in keys], sizes).astype(object),
        "group": np.concatenate([np.arange(size) for size in sizes]),
        "importance": np.concatenate([importance[key] for key in keys]),
    }


@dataclass(frozen=True)
class ImportanceTables:
    """Columns of the importance table and of the gradient table.

    Attributes:
        importance: Columns of `espalier.tables.Importance`.
        gradients: Columns of `espalier.tables.GradientStatistics`, or None if the criterion takes no gradients.
    """

    importance: Columns
    gradients: Columns | None


def measure_importance(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    counts: Sequence[int],
    *,
    criterion: str = "taylor",
    settings: PassSettings,
) -> ImportanceTables:
    """Compute importance and gradient statistics of all layers from calibration sequences.

    If the sums of all layers do not fit in memory, the layers are split into parts, and each part has its own pass over
    the sequences. When the GPU is out of memory, the pass is retried with fewer sequences per forward pass, then with
    fewer layers.

    Args:
        model: A causal language model.
        sequences: Token ids, (n_samples, seq_len).
        counts: Increasing sample counts n. For each, the tables have rows that are measured on the first n sequences.
        criterion: Name of a criterion that reads text.
        settings: Memory settings of the pass.

    Returns:
        Both tables, sorted by sample count and then by layer.

    Raises:
        UserError: If sequences are longer than the model's context, a sum is not finite, or one sequence and one layer
            do not fit in GPU memory.
    """
    check_fits_context(model, sequences.shape[1], "grid.taylor_seq_len")
    with counting_tokens(model) as routed:
        if CRITERIA[criterion].of_experts:
            tables = ImportanceTables(_measure_reap(model, sequences, counts, settings), None)
        else:
            tables = _measure_weights(model, sequences, counts, criterion, settings)
    log_unreached(routed, f"{len(sequences)} sequences of {sequences.shape[1]} tokens")
    return tables


def _measure_reap(
    model: PreTrainedModel, sequences: torch.Tensor, counts: Sequence[int], settings: PassSettings
) -> Columns:
    """Return the columns of the importance table by REAP, with a row for each expert.

    Raises:
        UserError: If the model has no experts, or a value is not finite.
    """
    if not any(map(has_experts, decoder_layers(model))):
        raise UserError("criterion reap: the model has no experts; leave out the methods with this criterion")
    size = choose_pass_size(model, sequences, CRITERIA["reap"].needs, settings)
    rows, done = [], 0
    with (
        Progress("calibration", total=counts[-1] * sequences.shape[1], unit="tokens") as progress,
        torch.no_grad(),
        recording_outputs(model) as outputs,
    ):
        for count in counts:
            while done < count:
                batch = sequences[done : min(done + size.batch_size, count)].to(model.device)
                model.get_decoder()(input_ids=batch, use_cache=False)
                done += len(batch)
                progress.advance(batch.numel())
            rows.append(importance_rows({(each.layer, EXPERT_ROWS): each.reap() for each in outputs}, count))
    return _concatenate(rows)


def _measure_weights(
    model: PreTrainedModel, sequences: torch.Tensor, counts: Sequence[int], criterion: str, settings: PassSettings
) -> ImportanceTables:
    """Compute the importance of groups from that of their weights; `measure_importance` describes the arguments."""
    needs = CRITERIA[criterion].needs
    n_between = max(count - before for before, count in itertools.pairwise((0, *counts)))
    size = choose_pass_size(model, sequences, needs, settings, n_between=n_between)
    n_layers = len(decoder_layers(model))
    snapshots: list[tuple[int, ImportanceTables]] = []
    start = 0
    n_passes = -(-n_layers // size.layers)
    with Progress("calibration", total=n_passes * counts[-1] * sequences.shape[1], unit="tokens") as progress:
        while start < n_layers:
            layers = range(start, min(start + size.layers, n_layers))
            try:
                passed = accumulate(
                    model, sequences, counts, needs, partial(_snapshot, model, criterion),
                    layers=layers, batch_size=size.batch_size, progress=progress, checkpointing=settings.checkpointing,
                )  # fmt: skip
                complete = list(passed)  # nothing is kept of a pass that runs out of memory
                snapshots += zip(counts, complete, strict=True)
            except torch.OutOfMemoryError:
                pass  # retry after this block, because until then the traceback keeps the tensors of the pass alive
            else:
                start = layers.stop
                continue
            size = _after_out_of_memory(size, layers, sequences.shape[1])
    tables = [table for _, table in sorted(snapshots, key=lambda each: each[0])]  # stable: keeps the order of layers
    gradients = [table.gradients for table in tables if table.gradients is not None]
    return ImportanceTables(
        _concatenate([table.importance for table in tables]), _concatenate(gradients) if gradients else None
    )


def importance_of_weights(model: PreTrainedModel, criterion: str) -> Columns:
    """Return the columns of the importance table of a criterion that reads no text. The column `n_samples` is 0."""
    return _snapshot(model, criterion, NO_SAMPLES, make_sums(model)).importance


def _snapshot(model: PreTrainedModel, criterion: str, count: int, sums: Sequence[Sums]) -> ImportanceTables:
    kv_groups = {number: n_kv_groups(layer) for number, layer in enumerate(decoder_layers(model))}
    reduced = reduce_parameters(CRITERIA[criterion], sums, count)
    importance = importance_rows(group_importance(sums, reduced, kv_groups), count)
    with_gradient = any(each.gradient is not None for each in sums)
    return ImportanceTables(importance, _gradient_rows(sums, reduced, count) if with_gradient else None)


def _gradient_rows(sums: Sequence[Sums], reduced: Sequence[ReducedParameter], n_samples: int) -> Columns:
    """Return the columns of the gradient table: one row per projection, with weight and bias pooled."""
    parts: dict[tuple[int, str], list[Moments]] = {}
    for each, found in zip(sums, reduced, strict=True):
        if found.moments is not None:
            key = (each.projection.layer, each.projection.name)
            moments = Moments.from_sum(each.parameter.numel(), *found.moments, n_samples=n_samples)
            parts.setdefault(key, []).append(moments)
    rows: list[Mapping[str, object]] = [
        {"n_samples": n_samples, "layer": layer, "projection": name, **pool(moments).statistics()}
        for (layer, name), moments in parts.items()
    ]
    return {
        column: np.array([row[column] for row in rows], dtype=object if column == "projection" else None)
        for column in rows[0]
    }


def _concatenate(parts: Sequence[Columns]) -> Columns:
    return {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}


def _after_out_of_memory(size: PassSize, layers: range, seq_len: int) -> PassSize:
    """Free the memory of the failed pass and return the pass size for the retry.

    Raises:
        UserError: If the failed pass had one layer and one sequence at a time.
    """
    smaller = PassSize(len(layers), size.batch_size).smaller()  # the last part may have fewer layers than `size.layers`
    if smaller is None:
        raise out_of_memory_error(f"not one sequence of {seq_len} tokens fits beside the sums of one layer")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning(
        "out of GPU memory at layers %d-%d; once more with %d sequences and %d layers at a time",
        layers.start, layers.stop - 1, smaller.batch_size, smaller.layers,
    )  # fmt: skip
    return smaller
