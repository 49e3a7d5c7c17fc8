"""A kernel that reads the weights and the summed gradient of a parameter once, for the criterion `taylor`.

It computes the sums of |w g| over each row or column, and the moments of g. Separate PyTorch operations would read the
numbers five times and write products back to memory. This module needs Triton, which comes with PyTorch for NVIDIA
GPUs. Without it, `espalier.calibration.reductions` uses PyTorch's operations.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

ROWS, COLUMNS = 32, 128  # elements of a tile, which one program of the kernel reads


def reduce_taylor(
    weight: torch.Tensor, gradient: torch.Tensor, n_samples: int, *, by_column: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the importance of the features of a weight, and the moments of its gradient.

    Args:
        weight: (rows, columns), contiguous.
        gradient: Sum of its gradients over sequences, float32, (rows, columns), contiguous.
        n_samples: Number of sequences.
        by_column: Whether to sum over columns instead of rows.

    Returns:
        Sums of |w g / n_samples| over each row (or column), float64; and the sum of |g|, the sum of g**2 and the
        largest |g|, float64, (3,).
    """
    n_rows, n_columns = weight.shape
    tiles = (triton.cdiv(n_rows, ROWS), triton.cdiv(n_columns, COLUMNS))
    n_tiles = tiles[0] * tiles[1]
    empty = {"dtype": torch.float32, "device": weight.device}
    # Within each tile, sums of |w g| over its rows for each column, or over its columns for each row.
    features = torch.empty((tiles[0], n_columns) if by_column else (tiles[1], n_rows), **empty)
    moments = torch.empty((3, n_tiles), **empty)
    with torch.cuda.device(weight.device) if weight.is_cuda else nullcontext():
        _kernel[tiles](
            weight, gradient, features, moments, n_rows, n_columns, n_tiles, float(n_samples),
            BY_COLUMN=by_column, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
    sum_abs, sum_squares, largest = moments.double()
    return features.double().sum(dim=0), torch.stack([sum_abs.sum(), sum_squares.sum(), largest.max()])


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    weight, gradient, features, moments, n_rows, n_columns, n_tiles, n_samples,
    BY_COLUMN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # noqa: N803 (constants of the kernel)
):  # fmt: skip
    row_tile, column_tile = tl.program_id(0), tl.program_id(1)
    row = row_tile * ROWS + tl.arange(0, ROWS)
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row[:, None] < n_rows) & (column[None, :] < n_columns)
    element = row[:, None].to(tl.int64) * n_columns + column[None, :]
    w = tl.load(weight + element, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradient + element, mask=inside, other=0.0)
    product = tl.abs(w * (g / n_samples))
    if BY_COLUMN:
        tl.store(features + row_tile * n_columns + column, tl.sum(product, axis=0), mask=column < n_columns)
    else:
        tl.store(features + column_tile * n_rows + row, tl.sum(product, axis=1), mask=row < n_rows)
    size = tl.abs(g)
    tile = row_tile * tl.num_programs(1) + column_tile
    tl.store(moments + tile, tl.sum(tl.sum(size, axis=1), axis=0))
    tl.store(moments + n_tiles + tile, tl.sum(tl.sum(g * g, axis=1), axis=0))
    tl.store(moments + 2 * n_tiles + tile, tl.max(tl.max(size, axis=1), axis=0))
