"""Validation of input arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

# Accuracies are sums of fractions, so equal differences may have different last digits.
TIE = 1e-12


def finite_array(values: Any, name: str, *, ndim: int = 1) -> FloatArray:
    """Convert values to a float64 array and check that all of them are finite.

    Args:
        values: Anything that numpy converts to numbers.
        name: Name of the values, for the error message.
        ndim: Required number of dimensions.

    Raises:
        UserError: If a value is missing or infinite.
        ValueError: If the number of dimensions is not `ndim`.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} has {array.ndim} dimensions; {ndim} are needed")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise UserError(f"{bad} of {array.size} values of {name} are missing or infinite; leave those experiments out")
    return array


def accuracy_and_draws(accuracy: Any, draws: Any) -> tuple[FloatArray, FloatArray]:
    """Convert accuracies and their bootstrap draws to arrays and check them.

    Args:
        accuracy: Accuracies, (n_experiments,).
        draws: Bootstrap draws, (n_draws, n_experiments).

    Raises:
        UserError: If a value is missing or infinite, or there is no experiment.
        ValueError: If the shapes do not match, or there are fewer than two draws.
    """
    theta, drawn = finite_array(accuracy, "accuracy"), finite_array(draws, "the bootstrap draws", ndim=2)
    if drawn.shape[1] != theta.size:
        raise ValueError(f"{theta.size} accuracies, but draws of {drawn.shape[1]} experiments")
    if theta.size == 0:
        raise UserError("no experiment was given; at least one valid experiment is needed")
    if drawn.shape[0] < 2:
        raise ValueError("at least two bootstrap draws are needed")
    return theta, drawn


def same_lengths(**columns: Any) -> None:
    """Raise ValueError unless all columns have the same length."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
