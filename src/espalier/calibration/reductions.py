"""Sums over the elements of each parameter: the importance of its features, and the moments of its gradient.

At a sample count, a pass reads the weights and sums of all projections, which are 42 GB for an 8B model. Everything
that is computed from them is therefore computed in one go, for a piece of a parameter at a time, and only the results
leave the device, all together. On a GPU with Triton, the criterion `taylor` has a kernel that reads each number once
(`espalier.calibration.taylor_kernel`). Otherwise, a piece is small enough to stay in the caches of the device.

Sums within a piece are float32, sums over pieces are float64.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from espalier.calibration.gradients import NonFiniteError, Sums
from espalier.models.decoder import COLUMN_GROUPED
from espalier.planning.criteria import Criterion, ParameterStats, taylor

ELEMENTS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Elements of a piece of a parameter."""
OfWeights = Callable[[ParameterStats], torch.Tensor]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReducedParameter:
    """Results for one parameter.

    Attributes:
        features: Sum of the criterion over each feature that belongs to a group, float64: rows (out_features,), or
            columns (in_features,) of the projections that write to the residual stream. None if the parameter belongs
            to no group.
        moments: Sum of |g|, sum of g**2 and largest |g| of the summed gradient g. None without a gradient.
    """

    features: npt.NDArray[np.float64] | None
    moments: tuple[float, float, float] | None


def reduce_parameters(criterion: Criterion, sums: Sequence[Sums], n_samples: int) -> list[ReducedParameter]:
    """Reduce each parameter.

    Args:
        criterion: A weight criterion (see `espalier.planning.criteria`).
        sums: Sums over `n_samples` sequences.
        n_samples: Number of sequences. 0 if the criterion reads no text.

    Raises:
        ValueError: If the criterion is a group criterion.
        NonFiniteError: If a result is not finite.
    """
    if criterion.of_weights is None:
        raise ValueError("this criterion looks at no weights")
    reduced = [_reduce(criterion.of_weights, each, n_samples) for each in sums]
    return [_check(each, found) for each, found in zip(sums, _fetch(reduced), strict=True)]


@dataclass(frozen=True)
class _OnDevice:
    """Results of one parameter, float64 tensors on its device: (features,) and (3,), or None."""

    features: torch.Tensor | None
    moments: torch.Tensor | None


def _reduce(of_weights: OfWeights, each: Sums, n_samples: int) -> _OnDevice:
    is_bias = each.parameter.dim() == 1
    by_column = not is_bias and each.projection.name in COLUMN_GROUPED
    # The bias of o_proj or down_proj belongs to no group.
    has_groups = not (is_bias and each.projection.name in COLUMN_GROUPED)
    weight = each.parameter.detach()
    if of_weights is taylor and not is_bias and weight.is_cuda and weight.is_contiguous():
        kernel = _taylor_kernel()
        if kernel is not None:
            return _OnDevice(*kernel(weight, each.gradient, n_samples, by_column=by_column))
    features, moments = [], []
    for piece in _pieces(each):
        if has_groups:
            features.append(_features(of_weights, piece, n_samples, by_column=by_column))
        if piece.gradient is not None:
            moments.append(_moments(piece.gradient))
    joined = torch.stack(features).sum(dim=0) if by_column else torch.cat(features) if features else None
    return _OnDevice(joined, _join_moments(torch.stack(moments)) if moments else None)


@cache
def _taylor_kernel() -> Callable[..., tuple[torch.Tensor, torch.Tensor]] | None:
    """Return `reduce_taylor`, or None without Triton."""
    try:
        from espalier.calibration.taylor_kernel import reduce_taylor
    except ImportError:
        logger.info("Triton is not installed: importance is computed in separate operations, which takes longer")
        return None
    return reduce_taylor


@dataclass(frozen=True)
class _Piece:
    """Consecutive rows of a parameter and of its sums, (rows, columns); a bias has one column.

    `squared_input` is (columns,), or of shape () for a bias.
    """

    weight: torch.Tensor
    gradient: torch.Tensor | None
    squared_gradient: torch.Tensor | None
    squared_input: torch.Tensor | None


def _pieces(each: Sums) -> Iterator[_Piece]:
    weight = each.parameter.detach()
    n_columns = weight.shape[1] if weight.dim() == 2 else 1
    step = max(1, ELEMENTS_AT_ONCE["cpu" if weight.device.type == "cpu" else "cuda"] // n_columns)

    def rows(total: torch.Tensor | None, start: int) -> torch.Tensor | None:
        return None if total is None else total.view(-1, n_columns)[start : start + step]

    for start in range(0, len(weight), step):
        yield _Piece(
            weight[start : start + step].view(-1, n_columns),
            rows(each.gradient, start),
            rows(each.squared_gradient, start),
            each.squared_input,
        )


def _features(of_weights: OfWeights, piece: _Piece, n_samples: int, *, by_column: bool) -> torch.Tensor:
    """Return the sums of the criterion over the rows or columns of a piece, float64."""

    def mean(total: torch.Tensor | None) -> torch.Tensor | None:
        return None if total is None else total / n_samples

    squared_input = mean(piece.squared_input)
    stats = ParameterStats(
        piece.weight.float(),
        mean(piece.gradient),
        mean(piece.squared_gradient),
        None if squared_input is None else squared_input.sqrt(),
    )
    return of_weights(stats).sum(dim=0 if by_column else 1).double()


def _moments(gradient: torch.Tensor) -> torch.Tensor:
    """Return the moments of a piece, float64, (3,)."""
    size = gradient.abs()  # norms of order 1 and infinity are not vectorised on a CPU
    norm = torch.linalg.vector_norm(gradient, dim=1).double()
    return torch.stack([size.sum(dim=1).double().sum(), norm.square().sum(), size.max().double()])


def _join_moments(parts: torch.Tensor) -> torch.Tensor:
    """Join the moments of pieces, (pieces, 3)."""
    return torch.stack([parts[:, 0].sum(), parts[:, 1].sum(), parts[:, 2].max()])


def _fetch(reduced: Sequence[_OnDevice]) -> Iterator[ReducedParameter]:
    """Copy all results to the host, in one copy for each device."""
    tensors = [tensor for each in reduced for tensor in (each.features, each.moments) if tensor is not None]
    on_host: dict[torch.device, Iterator[npt.NDArray[np.float64]]] = {}
    for device in {tensor.device for tensor in tensors}:
        mine = [tensor for tensor in tensors if tensor.device == device]
        ends = np.cumsum([len(tensor) for tensor in mine])[:-1]
        on_host[device] = iter(np.split(torch.cat(mine).cpu().numpy(), ends))
    for each in reduced:
        features = None if each.features is None else next(on_host[each.features.device])
        moments = None if each.moments is None else next(on_host[each.moments.device])
        yield ReducedParameter(features, None if moments is None else tuple(moments.tolist()))


def _check(each: Sums, found: ReducedParameter) -> ReducedParameter:
    """Check that the results are finite.

    The square of a float32 gradient over 1e19 is not finite in float32, although the gradient is. It is then summed in
    float64.

    Raises:
        NonFiniteError: If a result is not finite.
    """
    overflows = found.moments is not None and np.isfinite(found.moments[0]) and not np.isfinite(found.moments[1])
    if overflows and found.moments is not None and each.gradient is not None:
        sum_squares = float(each.gradient.double().square_().sum())
        found = replace(found, moments=(found.moments[0], sum_squares, found.moments[2]))
    values = [*(found.moments or ()), *([] if found.features is None else [found.features.sum()])]
    if not np.isfinite(values).all():
        raise NonFiniteError(
            f"importance: not finite in layer {each.projection.layer}, {each.projection.name}, although all sums are"
        )
    return found
