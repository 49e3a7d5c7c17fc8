"""Importance tables and gradient statistics of a model, for every sample count of one pass."""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from espalier.calibration.gradient_statistics import Moments, pool
from espalier.calibration.gradients import Sums, accumulate, check_length
from espalier.calibration.memory import PassSettings, PassSize, out_of_memory, pass_size
from espalier.models.decoder import INPUT_SIDE, decoder_layers, n_kv_groups, projections
from espalier.planning.criteria import CRITERIA, Criterion
from espalier.progress import Progress

GroupImportance = dict[tuple[int, str], npt.NDArray[np.float64]]
ATTENTION = "attention"


def group_importance(
    criterion: Criterion, sums: Sequence[Sums], n_samples: int, n_kv_groups: Mapping[int, int]
) -> GroupImportance:
    """Sum a criterion over the weights of each group.

    Args:
        criterion: One that looks at weights.
        sums: What was summed over `n_samples` sequences.
        n_samples: Number of sequences.
        n_kv_groups: KV groups of each layer.

    Returns:
        For each (layer, block) the importance of its groups, float64: (n_kv_groups,) or (n_mlp_channels,).
    """
    if criterion.of_weights is None:
        raise ValueError("this criterion looks at no weights")
    importance: GroupImportance = {}
    for each in sums:
        projection, is_bias = each.projection, each.parameter.dim() == 1
        if is_bias and projection.name in INPUT_SIDE:
            continue  # the bias of o_proj or down_proj belongs to no group
        values = criterion.of_weights(each.evidence(n_samples))
        per_feature = values if is_bias else values.sum(dim=0 if projection.name in INPUT_SIDE else 1)
        n_groups = n_kv_groups[projection.layer] if projection.block == ATTENTION else len(per_feature)
        per_group = per_feature.double().view(n_groups, -1).sum(dim=1).cpu().numpy()
        key = (projection.layer, projection.block)
        importance[key] = importance.get(key, np.zeros(n_groups)) + per_group
    return importance


def importance_rows(importance: GroupImportance, n_samples: int) -> dict[str, npt.NDArray[np.generic]]:
    """Make columns of the importance table, in the order layer, block (attention first), group."""
    keys = sorted(importance, key=lambda key: (key[0], key[1] != ATTENTION))
    sizes = [len(importance[key]) for key in keys]
    return {
        "n_samples": np.full(sum(sizes), n_samples),
        "layer": np.repeat([layer for layer, _ in keys], sizes),
        "block": np.repeat([block for _, block in keys], sizes).astype(object),
        "group": np.concatenate([np.arange(size) for size in sizes]),
        "importance": np.concatenate([importance[key] for key in keys]),
    }


Columns = dict[str, npt.NDArray[np.generic]]
WITHOUT_TEXT = 0  # the sample count of a criterion that reads no text
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """Columns of two tables.

    Attributes:
        importance: As `espalier.tables.Importance`.
        statistics: As `espalier.tables.Gradients`; None where no gradient was taken.
    """

    importance: Columns
    statistics: Columns | None


def collect_importance(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    counts: Sequence[int],
    *,
    criterion: str = "taylor",
    settings: PassSettings,
) -> Collected:
    """Run one pass over the calibration sequences.

    Args:
        model: A causal language model.
        sequences: Token ids, (n_samples, seq_len).
        counts: Increasing numbers of sequences at which to take a snapshot.
        criterion: A criterion that reads text.
        settings: How the pass is run.

    Raises:
        UserError: If sequences are too long, something is not finite, or GPU memory is exhausted at the smallest
            setting.
    """
    check_length(model, sequences.shape[1])
    needs = CRITERIA[criterion].needs
    n_between = max(count - before for before, count in itertools.pairwise((0, *counts)))
    size = pass_size(model, sequences, needs, settings, n_between=n_between)
    n_layers = len(decoder_layers(model))
    found: list[tuple[int, Columns, Columns | None]] = []
    start = 0
    n_passes = -(-n_layers // size.layers)
    with Progress("calibration", total=n_passes * counts[-1] * sequences.shape[1], unit="tokens") as progress:
        while start < n_layers:
            layers = range(start, min(start + size.layers, n_layers))
            try:
                passed = accumulate(
                    model, sequences, counts, needs,
                    layers=layers, rows=size.rows, progress=progress, checkpointing=settings.checkpointing,
                )  # fmt: skip
                found += [_snapshot(criterion, count, sums, model) for count, sums in passed]
            except torch.OutOfMemoryError:
                pass  # its traceback holds the failed pass, so memory is free only after this block
            else:
                start = layers.stop
                continue
            size = _after_out_of_memory(size, layers, sequences.shape[1])
    order = sorted(found, key=lambda each: each[0])  # stable: layers stay in order
    statistics = [each[2] for each in order if each[2] is not None]
    return Collected(_concatenate([each[1] for each in order]), _concatenate(statistics) if statistics else None)


def importance_of_weights(model: PreTrainedModel, criterion: str) -> Columns:
    """Make the importance table of a criterion that reads no text; its `n_samples` is 0."""
    sums = [
        Sums(projection, parameter)
        for projection in projections(model)
        for parameter in (projection.weight, projection.bias)
        if parameter is not None
    ]
    return _snapshot(criterion, WITHOUT_TEXT, sums, model)[1]


def _snapshot(
    criterion: str, count: int, sums: Sequence[Sums], model: PreTrainedModel
) -> tuple[int, Columns, Columns | None]:
    kv_groups = {number: n_kv_groups(layer) for number, layer in enumerate(decoder_layers(model))}
    importance = importance_rows(group_importance(CRITERIA[criterion], sums, count, kv_groups), count)
    with_gradient = any(each.gradient is not None for each in sums)
    return count, importance, _statistics(sums, count) if with_gradient else None


def _statistics(sums: Sequence[Sums], n_samples: int) -> Columns:
    """Make one row per projection; its weight and its bias are pooled."""
    parts: dict[tuple[int, str], list[Moments]] = {}
    for each in sums:
        if each.gradient is not None:
            key = (each.projection.layer, each.projection.name)
            parts.setdefault(key, []).append(_moments(each.gradient, n_samples))
    rows: list[Mapping[str, object]] = [
        {"n_samples": n_samples, "layer": layer, "projection": name, **pool(moments).statistics()}
        for (layer, name), moments in parts.items()
    ]
    return {
        column: np.array([row[column] for row in rows], dtype=object if column == "projection" else None)
        for column in rows[0]
    }


def _moments(total: torch.Tensor, n_samples: int) -> Moments:
    """Take the moments of the mean gradient; float64 sums, so that nothing overflows."""
    return Moments.of_sum(
        total.numel(),
        float(total.abs().sum(dtype=torch.float64)),
        float(total.double().square_().sum()),
        float(total.abs().max()),
        n_samples=n_samples,
    )


def _concatenate(parts: Sequence[Columns]) -> Columns:
    return {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}


def _after_out_of_memory(size: PassSize, layers: range, seq_len: int) -> PassSize:
    """Free what the failed pass held and make the pass smaller; it begins again with the layers it was at."""
    smaller = PassSize(len(layers), size.rows).smaller()  # the last layers of a pass may be fewer than it could take
    if smaller is None:
        raise out_of_memory(f"not one sequence of {seq_len} tokens fits beside the sums of one layer")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning(
        "out of GPU memory at layers %d-%d; once more with %d sequences and %d layers at a time",
        layers.start, layers.stop - 1, smaller.rows, smaller.layers,
    )  # fmt: skip
    return smaller
