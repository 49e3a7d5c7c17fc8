"""Statistics of the accumulated mean gradient g, per projection, per layer, and over a model.

Per projection, over its n parameters: mean |g|, the standard deviation of |g|, the L2 norm, and max |g|. A layer pools
its projections: parameter-weighted mean, deviation from pooled moments, root of the summed squares, maximum. Over a
model, with x_l a layer's statistic: `grad_x_ratio` = max x_l / min non-zero x_l, `grad_x_range` = max x_l - min x_l.
All sums are float64, so nothing overflows (the published run lost its norms to float16).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Moments:
    """Sums over the parameters of a projection or layer, of the mean gradient.

    Attributes:
        n_params: Number of parameters.
        sum_abs: Sum of |g|.
        sum_squares: Sum of g**2.
        largest: Largest |g|.
    """

    n_params: int
    sum_abs: float
    sum_squares: float
    largest: float

    @classmethod
    def of_sum(cls, n_params: int, sum_abs: float, sum_squares: float, largest: float, *, n_samples: int) -> Moments:
        """Turn moments of a gradient summed over samples into those of the mean gradient."""
        return cls(n_params, sum_abs / n_samples, sum_squares / n_samples**2, largest / n_samples)

    def statistics(self) -> dict[str, float]:
        """Return n_params, grad_mean, grad_std, grad_norm, grad_max."""
        mean = self.sum_abs / self.n_params
        return {
            "n_params": self.n_params,
            "grad_mean": mean,
            "grad_std": math.sqrt(max(0.0, self.sum_squares / self.n_params - mean**2)),
            "grad_norm": math.sqrt(self.sum_squares),
            "grad_max": self.largest,
        }


def pool(parts: Iterable[Moments]) -> Moments:
    """Pool the moments of several sets of parameters."""
    parts = list(parts)
    return Moments(
        sum(part.n_params for part in parts),
        math.fsum(part.sum_abs for part in parts),
        math.fsum(part.sum_squares for part in parts),
        max(part.largest for part in parts),
    )


def moments_of(statistics: Mapping[Any, float]) -> Moments:
    """Recover moments from the stored statistics of a projection."""
    n_params = int(statistics["n_params"])
    return Moments(n_params, statistics["grad_mean"] * n_params, statistics["grad_norm"] ** 2, statistics["grad_max"])


def model_metrics(layers: Iterable[Mapping[str, float]]) -> dict[str, float | None]:
    """Summarise the statistics of all layers.

    Args:
        layers: `Moments.statistics()` of each layer.

    Returns:
        `grad_mean_ratio`, `grad_norm_ratio`, `grad_std_ratio`, `grad_max_ratio`, `grad_mean_range`,
        `grad_norm_range`; a ratio is None when every layer's statistic is zero.
    """
    layers = list(layers)
    metrics: dict[str, float | None] = {}
    for name in ("mean", "norm", "std", "max"):
        values = [layer[f"grad_{name}"] for layer in layers]
        positive = [value for value in values if value > 0]
        metrics[f"grad_{name}_ratio"] = max(positive) / min(positive) if positive else None
        if name in {"mean", "norm"}:
            metrics[f"grad_{name}_range"] = max(values) - min(values)
    return metrics
