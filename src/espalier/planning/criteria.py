"""Criteria: the importance of weights or groups. A new criterion is added only here.

A weight criterion computes an importance for each element of a parameter from statistics of the parameter. The
importance of a group is the sum over its elements. One pass over n calibration sequences collects the statistics:

    gradient  g = (1/n) sum_s d loss_s / d w          loss_s: mean next-token loss of sequence s, nats
    squared_gradient  F = (1/n) sum_s (d loss_s / d w)^2
    input_norm  ||x_j|| = sqrt((1/n) sum_s sum_t x_jst^2)     x_jst: input feature j at token t of sequence s

An expert criterion computes the importance of each expert from its outputs in a forward pass.

A group criterion needs no model: it computes importances from the costs of the groups.

This module imports neither torch nor numpy, because every job reads its registry when it validates the config.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Statistic = Literal["gradient", "squared_gradient", "input_norm", "expert_output"]


@dataclass(frozen=True)
class ParameterStats:
    """Statistics of one parameter: float32 tensors of its shape, unless noted otherwise.

    A statistic is None if the criterion does not need it.

    Attributes:
        weight: The parameter, (out_features, in_features), or (out_features,) for a bias.
        gradient: g.
        squared_gradient: F.
        input_norm: ||x_j||, (in_features,). For a bias, whose input is 1 at every token, it is sqrt(seq_len).
    """

    weight: Tensor
    gradient: Tensor | None = None
    squared_gradient: Tensor | None = None
    input_norm: Tensor | None = None


@dataclass(frozen=True)
class Criterion:
    """A criterion. Exactly one of `of_weights`, `of_experts` and `of_groups` is given.

    Attributes:
        of_weights: Returns the importance of each element of a parameter.
        needs: Statistics that `of_weights` or `of_experts` needs from a pass over calibration text.
        of_groups: Returns the importance of each group from the costs of the groups (parameters) and a seed.
        is_seeded: Whether the result of `of_groups` depends on its seed.
        of_experts: Whether it is a measurement of whole experts (`espalier.calibration.experts`).
    """

    of_weights: Callable[[ParameterStats], Tensor] | None = None
    needs: frozenset[Statistic] = frozenset()
    of_groups: Callable[[NDArray[np.int64], int], NDArray[np.float64]] | None = None
    is_seeded: bool = True
    of_experts: bool = False

    @property
    def reads_model(self) -> bool:
        """Whether importances are measured on the model and therefore read from an importance table."""
        return self.of_weights is not None or self.of_experts

    @property
    def reads_text(self) -> bool:
        """Whether importances depend on the calibration set, its sequence length and its number of samples."""
        return bool(self.needs)


def taylor(stats: ParameterStats) -> Tensor:
    """Return |w g|, the first-order change of the loss. Source: Ma et al., LLM-Pruner (2023)."""
    return (stats.weight * _require(stats.gradient)).abs_()


def taylor2(stats: ParameterStats) -> Tensor:
    """Return |w g| + w^2 F / 2, the second-order change of the loss. Source: Ma et al., LLM-Pruner (2023).

    F, the diagonal of the empirical Fisher matrix, replaces the Hessian.
    """
    return taylor(stats) + 0.5 * stats.weight.square() * _require(stats.squared_gradient)


def wanda(stats: ParameterStats) -> Tensor:
    """Return |w| ||x||, the weight times the norm of its input feature. Source: Sun et al., Wanda (2024)."""
    return stats.weight.abs() * _require(stats.input_norm)


def magnitude(stats: ParameterStats) -> Tensor:
    """Return |w|."""
    return stats.weight.abs()


def random(costs: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return the cost of each group times a uniform draw from [0, 1).

    The score, importance / cost, is then the draw, whatever the cost.
    """
    import numpy as np

    return np.random.default_rng(seed).random(len(costs)) * costs


def constant(costs: NDArray[np.int64], _seed: int) -> NDArray[np.float64]:
    """Return the cost of each unit.

    The base score, importance / cost, is then 1, so the prior alone decides. With whole layers and the prior
    `cosine_distance`, the order is that of Men et al., ShortGPT (2024).
    """
    return costs.astype("float64")


CRITERIA = {
    "taylor": Criterion(taylor, frozenset({"gradient"})),
    "taylor2": Criterion(taylor2, frozenset({"gradient", "squared_gradient"})),
    "wanda": Criterion(wanda, frozenset({"input_norm"})),
    "magnitude": Criterion(magnitude),
    "random": Criterion(of_groups=random),
    "constant": Criterion(of_groups=constant, is_seeded=False),
    "reap": Criterion(needs=frozenset({"expert_output"}), of_experts=True),
}


def needs_backward(needs: Collection[Statistic]) -> bool:
    """Return whether any of the needed statistics requires backward passes."""
    return not {"gradient", "squared_gradient"}.isdisjoint(needs)


def _require(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("a criterion uses what it does not list in `needs`")
    return value
