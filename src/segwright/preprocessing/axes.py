"""Resampling along one axis: spline prefilter and interpolation united in one banded matrix.

A separable resize is one matrix per axis. Its columns are the answers of scipy's
``zoom(x, n_out / n_in, order=order, mode="nearest", grid_mode=True)`` to unit impulses, so boundaries come out as
scipy's (and scikit-image's ``resize(mode="edge")``, which nnU-Net calls, method 4.5). The matrix is banded: 32 taps a
row in cubic, 2 in linear interpolation. It is applied as small dense products: OpenBLAS computes those where the
operands lie, while it packs those of larger products into buffers first, which takes longer than so few sums.

Products run on one BLAS thread: splitting a product changes its last bit, and results must not depend on how many cores
a machine has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

BLOCK_ROWS = 16  # a block of 32 rows multiplies by a third more zeros
SMALL_PRODUCT = 1_000_000  # multiplications of a product that OpenBLAS computes without packing its operands
NEGLIGIBLE_WEIGHT = 1e-9  # cubic taps fall by 0.268 a voxel; what is left out changes a result by less than 1e-8 of it


@dataclass(frozen=True)
class Block:
    """Dense rows ``[row_lo, row_hi)`` of a banded matrix; all other columns than ``[col_lo, col_hi)`` are zero.

    Attributes:
        weights: (row_hi - row_lo, col_hi - col_lo), contiguous.
        weights_transposed: the same, transposed and contiguous: BLAS is slower with a transposed view.
    """

    row_lo: int
    row_hi: int
    col_lo: int
    col_hi: int
    weights: NDArray[Any]
    weights_transposed: NDArray[Any]


@dataclass(frozen=True)
class AxisMatrix:
    """The banded matrix that resamples ``n_in`` voxels of an axis to ``n_out``."""

    n_in: int
    n_out: int
    blocks: tuple[Block, ...]

    def apply(self, array: NDArray[Any], axis: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Resample ``axis`` of an array of the matrix's dtype; into ``out`` if given, which must be C-contiguous."""
        shape = (*array.shape[:axis], self.n_out, *array.shape[axis + 1 :])
        result = np.empty(shape, array.dtype) if out is None else out
        after = prod(array.shape[axis + 1 :])
        use_one_blas_thread()
        if after == 1:
            rows, out_rows = array.reshape(-1, self.n_in), result.reshape(-1, self.n_out)
            for tile, block in product(self._tiles(len(rows)), self.blocks):
                part, out_part = rows[tile, block.col_lo : block.col_hi], out_rows[tile, block.row_lo : block.row_hi]
                np.matmul(part, block.weights_transposed, out=out_part)
        else:
            planes, out_planes = array.reshape(-1, self.n_in, after), result.reshape(-1, self.n_out, after)
            for tile, block in product(self._tiles(after), self.blocks):
                part = planes[:, block.col_lo : block.col_hi, tile]
                np.matmul(block.weights, part, out=out_planes[:, block.row_lo : block.row_hi, tile])
        return result

    def dense(self) -> NDArray[Any]:
        """The whole matrix, (n_out, n_in)."""
        full = np.zeros((self.n_out, self.n_in), self.blocks[0].weights.dtype)
        for block in self.blocks:
            full[block.row_lo : block.row_hi, block.col_lo : block.col_hi] = block.weights
        return full

    def _tiles(self, count: int) -> Iterator[slice]:
        """Equal parts of ``count`` rows or columns whose product with any block is a small one."""
        most = max(1, SMALL_PRODUCT // max(block.weights.size for block in self.blocks))
        step = ceil(count / ceil(count / most))
        return (slice(start, start + step) for start in range(0, count, step))


@lru_cache(maxsize=64)
def axis_matrix(n_in: int, n_out: int, order: int, dtype: str = "float32") -> AxisMatrix:
    """The matrix that resamples an axis with a spline of ``order``, cut into blocks."""
    weights = _impulse_responses(n_in, n_out, order)
    weights[np.abs(weights) < NEGLIGIBLE_WEIGHT] = 0.0
    blocks = []
    for row_lo in range(0, n_out, BLOCK_ROWS):
        rows = weights[row_lo : row_lo + BLOCK_ROWS]
        columns = np.flatnonzero(rows.any(axis=0))
        col_lo, col_hi = int(columns[0]), int(columns[-1]) + 1
        dense = np.ascontiguousarray(rows[:, col_lo:col_hi], dtype=dtype)
        blocks.append(Block(row_lo, row_lo + len(rows), col_lo, col_hi, dense, np.ascontiguousarray(dense.T)))
    return AxisMatrix(n_in, n_out, tuple(blocks))


@dataclass(frozen=True)
class LinearTaps:
    """Order-1 interpolation of one axis: output i is ``weight_low[i] * x[low[i]] + weight_high[i] * x[high[i]]``.

    Attributes:
        low, high: int64 (n_out,), indices into the input, ``high`` equal to ``low`` or one more.
        weight_low, weight_high: float64 (n_out,), bit for bit the weights scipy computes.
        nearest: int64 (n_out,), what order 0 takes; always ``low`` or ``high``.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight_low: NDArray[np.float64]
    weight_high: NDArray[np.float64]
    nearest: NDArray[np.int64]


@lru_cache(maxsize=64)
def linear_taps(n_in: int, n_out: int, split_border: bool = False) -> LinearTaps:
    """Where each output voxel of an axis lies among the input voxels.

    Args:
        split_border: beyond the first and last voxel centre keep the two weights apart, both on the border voxel, as
            scipy does. Adding them up to one changes the last bit of a sum, which decides exact ties between labels.
    """
    position = _positions(n_in, n_out)
    if not split_border:
        position = np.clip(position, 0, n_in - 1)
    low = np.floor(position)
    weight_low = 1.0 - (position - low)
    weight_high = 1.0 - weight_low
    low_index = low.astype(np.int64)
    return LinearTaps(
        low=np.clip(low_index, 0, n_in - 1),
        high=np.clip(low_index + 1, 0, n_in - 1),
        weight_low=weight_low,
        weight_high=weight_high,
        nearest=nearest_index(n_in, n_out),
    )


def nearest_index(n_in: int, n_out: int) -> NDArray[np.int64]:
    """Input voxel that order 0 takes for each output voxel: halves go up, as in scipy. int64 (n_out,)."""
    return np.clip(np.floor(_positions(n_in, n_out) + 0.5).astype(np.int64), 0, n_in - 1)


def _positions(n_in: int, n_out: int) -> NDArray[Any]:
    """Output voxel centres in input voxels; may lie up to half a voxel outside the first and last centre."""
    return (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5


def _impulse_responses(n_in: int, n_out: int, order: int) -> NDArray[np.float64]:
    """The full matrix (n_out, n_in) of a spline resize, float64."""
    if order == 1:
        taps, rows = linear_taps(n_in, n_out), np.arange(n_out)
        weights = np.zeros((n_out, n_in))
        np.add.at(weights, (rows, taps.low), taps.weight_low)
        np.add.at(weights, (rows, taps.high), taps.weight_high)
        return weights
    from scipy import ndimage

    zoom: Any = ndimage.zoom  # its stubs know only literal orders
    result: NDArray[np.float64] = zoom(np.eye(n_in), (n_out / n_in, 1), order=order, mode="nearest", grid_mode=True)
    return result


@lru_cache(maxsize=1)
def use_one_blas_thread() -> None:
    """From now on numpy's matrix products run on one thread in this process.

    Sums would otherwise fall differently with the number of cores, and so would the last bits of the result. The limit
    stays: it cannot be lifted by another thread than the one that set it, and only numpy's products are concerned.
    """
    ThreadpoolController().limit(limits=1, user_api="blas")
