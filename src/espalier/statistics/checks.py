"""What is asked of arrays before anything is computed from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from espalier.errors import UserError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

# Accuracies are sums of fractions: differences that are equal may differ in the last digits.
TIE = 1e-12


def finite(values: Any, name: str, *, ndim: int = 1) -> FloatArray:
    """Return values as a float64 array.

    Args:
        values: Anything numpy reads as numbers.
        name: What they are, for the message.
        ndim: Number of dimensions they must have.

    Raises:
        UserError: If a value is missing or infinite.
        ValueError: If the dimensions differ.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} has {array.ndim} dimensions; {ndim} are needed")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise UserError(f"{bad} of {array.size} values of {name} are missing or infinite; leave those experiments out")
    return array


def accuracy_and_draws(accuracy: Any, draws: Any) -> tuple[FloatArray, FloatArray]:
    """Check accuracies, (n_experiments,), and their draws, (n_draws, n_experiments); raises as `finite`."""
    theta, drawn = finite(accuracy, "accuracy"), finite(draws, "the bootstrap draws", ndim=2)
    if drawn.shape[1] != theta.size:
        raise ValueError(f"{theta.size} accuracies, but draws of {drawn.shape[1]} experiments")
    if theta.size == 0:
        raise UserError("no experiment was given; at least one valid experiment is needed")
    if drawn.shape[0] < 2:
        raise ValueError("at least two bootstrap draws are needed")
    return theta, drawn


def same_lengths(**columns: Any) -> None:
    """Raise ValueError unless all columns have one length."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
