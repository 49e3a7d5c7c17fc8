"""Criteria: how important a weight or a group is. The one place to add another.

A criterion that looks at weights maps what is known of one parameter to an importance of each of its elements; a
group's importance is the sum over its elements. What it needs is gathered in one pass over n calibration sequences:

    gradient  g = (1/n) sum_s d loss_s / d w          loss_s: mean next-token loss of sequence s, nats
    squared_gradient  F = (1/n) sum_s (d loss_s / d w)^2
    input_norm  ||x_j|| = sqrt((1/n) sum_s sum_t x_jst^2)     x_jst: input feature j at token t of sequence s

A criterion that looks at groups needs no model: it maps their costs to importances.

Imports neither torch nor numpy: the config reads this registry in every job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Need = Literal["gradient", "squared_gradient", "input_norm"]


@dataclass(frozen=True)
class ParameterStats:
    """What is known of one parameter: float32 tensors of its shape, unless said otherwise.

    Attributes:
        weight: The parameter, (out_features, in_features), or (out_features,) for a bias.
        gradient: g; only where a criterion needs it.
        squared_gradient: F; only where a criterion needs it.
        input_norm: ||x_j||, (in_features,); for a bias, whose input is 1 at every token, sqrt(seq_len). Only where a
            criterion needs it.
    """

    weight: Tensor
    gradient: Tensor | None = None
    squared_gradient: Tensor | None = None
    input_norm: Tensor | None = None


@dataclass(frozen=True)
class Criterion:
    """A criterion: exactly one of two functions, and what the first needs.

    Attributes:
        of_weights: Importance of each element of a parameter.
        needs: What a pass over calibration text must gather for it.
        of_groups: Importance of each group from the groups' costs (parameters) and a seed.
    """

    of_weights: Callable[[ParameterStats], Tensor] | None = None
    needs: frozenset[Need] = frozenset()
    of_groups: Callable[[NDArray[np.int64], int], NDArray[np.float64]] | None = None

    @property
    def reads_model(self) -> bool:
        """Whether importances come from the model, hence from a table."""
        return self.of_weights is not None

    @property
    def reads_text(self) -> bool:
        """Whether importances depend on the calibration set, its sequence length and its number of samples."""
        return bool(self.needs)


def taylor(known: ParameterStats) -> Tensor:
    """|w g|: first-order change of the loss. Ma et al., LLM-Pruner (2023)."""
    return (known.weight * _given(known.gradient)).abs_()


def taylor2(known: ParameterStats) -> Tensor:
    """|w g| + w^2 F / 2: with the diagonal of the empirical Fisher matrix for the Hessian. Ma et al. (2023)."""
    return taylor(known) + 0.5 * known.weight.square() * _given(known.squared_gradient)


def wanda(known: ParameterStats) -> Tensor:
    """|w| ||x||: weight times norm of its input feature. Sun et al., Wanda (2024)."""
    return known.weight.abs() * _given(known.input_norm)


def magnitude(known: ParameterStats) -> Tensor:
    """|w|."""
    return known.weight.abs()


def random(costs: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Draw uniformly on (0, 1) per parameter of the group, so that the score, importance / cost, is the plain draw."""
    import numpy as np

    return np.random.default_rng(seed).random(len(costs)) * costs


CRITERIA = {
    "taylor": Criterion(taylor, frozenset({"gradient"})),
    "taylor2": Criterion(taylor2, frozenset({"gradient", "squared_gradient"})),
    "wanda": Criterion(wanda, frozenset({"input_norm"})),
    "magnitude": Criterion(magnitude),
    "random": Criterion(of_groups=random),
}


def takes_gradients(needs: Collection[Need]) -> bool:
    """Tell whether what a criterion needs is gathered by backward passes."""
    return not {"gradient", "squared_gradient"}.isdisjoint(needs)


def _given(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("a criterion uses what it does not list in `needs`")
    return value
