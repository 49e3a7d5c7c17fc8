"""What one gradient pass leaves behind: the importance table and the statistics table, for every count."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from transformers import PreTrainedModel

from espalier.gradients.accumulate import Gradient, accumulate
from espalier.gradients.importance import importance_rows, taylor_importance
from espalier.gradients.statistics import Moments, pool
from espalier.models.decoder import decoder_layers, n_kv_groups


def collect_snapshots(
    model: PreTrainedModel, sequences: torch.Tensor, counts: Sequence[int], *, token_budget: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run one gradient pass.

    Args:
        model: A causal language model.
        sequences: Token ids, (n_samples, seq_len).
        counts: Increasing numbers of sequences at which to take a snapshot.
        token_budget: Upper bound on tokens in a forward pass.

    Returns:
        The table of importances (`espalier.tables.Importance`) and of statistics (`espalier.tables.Gradients`).

    Raises:
        UserError: If sequences are too long or a gradient is not finite.
    """
    groups = [n_kv_groups(layer) for layer in decoder_layers(model)]
    importance, statistics = [], []
    for count, gradients in accumulate(model, sequences, counts, token_budget=token_budget):
        importance.append(pd.DataFrame(importance_rows(taylor_importance(gradients, count, groups), count)))
        statistics.append(pd.DataFrame(_statistics_rows(gradients, count)))
    return pd.concat(importance, ignore_index=True), pd.concat(statistics, ignore_index=True)


def _statistics_rows(gradients: Sequence[Gradient], n_samples: int) -> list[dict[str, object]]:
    """Make one row per projection; its weight and its bias are pooled."""
    parts: dict[tuple[int, str], list[Moments]] = {}
    for gradient in gradients:
        parts.setdefault((gradient.projection.layer, gradient.projection.name), []).append(
            _moments(gradient.total, n_samples)
        )
    return [
        {"n_samples": n_samples, "layer": layer, "projection": name, **pool(moments).statistics()}
        for (layer, name), moments in parts.items()
    ]


def _moments(total: torch.Tensor, n_samples: int) -> Moments:
    """Take the moments of the mean gradient; float64 sums, so that nothing overflows."""
    return Moments.of_sum(
        total.numel(),
        float(total.abs().sum(dtype=torch.float64)),
        float(total.double().square_().sum()),
        float(total.abs().max()),
        n_samples=n_samples,
    )
