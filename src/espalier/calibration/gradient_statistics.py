"""Statistics of the mean gradient g of a projection, a layer or a model.

g is the mean over calibration sequences. The statistics of a projection are the mean of |g|, the standard deviation of
|g|, the L2 norm of g and the maximum of |g|, each over all parameters of the projection.

The statistics of a layer pool its projections: the mean is weighted by parameters, the standard deviation comes from
the pooled moments, the norm is the root of the summed squares, and the maximum is taken over all projections.

The metrics of a model compare its layers. With x_l for a statistic of layer l, `grad_x_ratio` is max x_l divided by the
smallest non-zero x_l, and `grad_x_range` is max x_l - min x_l.

`espalier.calibration.reductions` computes the moments of parameters. They are finite for every finite gradient. The
published run computed norms in float16 and lost them to overflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Moments:
    """Sums of the mean gradient g over the parameters of a projection or layer.

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
    def from_sum(cls, n_params: int, sum_abs: float, sum_squares: float, largest: float, *, n_samples: int) -> Moments:
        """Return the moments of the mean gradient, given the moments of the sum over `n_samples` sequences."""
        return cls(n_params, sum_abs / n_samples, sum_squares / n_samples**2, largest / n_samples)

    def statistics(self) -> dict[str, float]:
        """Return `n_params`, `grad_mean`, `grad_std`, `grad_norm` and `grad_max`, by name."""
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
    """Reconstruct the moments of a projection from its stored statistics.

    Args:
        statistics: A row with `n_params`, `grad_mean`, `grad_norm` and `grad_max`.
    """
    n_params = int(statistics["n_params"])
    return Moments(n_params, statistics["grad_mean"] * n_params, statistics["grad_norm"] ** 2, statistics["grad_max"])


def model_metrics(layers: Iterable[Mapping[str, float]]) -> dict[str, float | None]:
    """Compute the metrics of a model from the statistics of its layers.

    Args:
        layers: `Moments.statistics()` of each layer.

    Returns:
        `grad_mean_ratio`, `grad_norm_ratio`, `grad_std_ratio`, `grad_max_ratio`, `grad_mean_range` and
        `grad_norm_range`. A ratio is None when the statistic is zero in every layer.
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
