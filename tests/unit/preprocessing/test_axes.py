"""Matrices of one axis against scipy, the taps of order 1 bit for bit, and the thread limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from threadpoolctl import threadpool_info

from segwright.preprocessing.axes import axis_matrix, linear_taps, nearest_index


def zoom(array: np.ndarray, n_out: int, order: int) -> np.ndarray:
    return ndimage.zoom(array, n_out / len(array), order=order, mode="nearest", grid_mode=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 110), st.sampled_from([1, 2, 3]))
def test_matrix_times_signal_is_scipys_zoom(n_in: int, n_out: int, order: int) -> None:
    signal = np.random.default_rng(n_in).normal(size=n_in)
    if n_in == n_out:
        return
    matrix = axis_matrix(n_in, n_out, order, "float64")
    assert np.abs(matrix.dense() @ signal - zoom(signal, n_out, order)).max() < 1e-7
    assert np.abs(matrix.dense().sum(axis=1) - 1).max() < 1e-7  # constants stay constant


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_apply_works_along_any_axis_and_into_a_given_array(axis: int) -> None:
    array = np.random.default_rng(0).normal(size=(5, 6, 70, 4)).astype(np.float32)
    matrix = axis_matrix(array.shape[axis], 83, 3)
    expected = np.moveaxis(np.tensordot(matrix.dense(), array, (1, axis)), 0, axis)
    out = np.empty(expected.shape, np.float32)
    assert matrix.apply(array, axis, out) is out
    assert np.abs(out - expected).max() < 1e-5
    assert np.array_equal(out, matrix.apply(array, axis))


@pytest.mark.parametrize("shape", [(5000, 70), (70, 5000)])
def test_many_rows_or_columns_are_multiplied_in_tiles(shape: tuple[int, int]) -> None:
    array, axis = np.random.default_rng(0).normal(size=shape), shape.index(70)
    matrix = axis_matrix(70, 83, 3, "float64")
    expected = np.moveaxis(np.tensordot(matrix.dense(), array, (1, axis)), 0, axis)
    assert np.abs(matrix.apply(array, axis) - expected).max() < 1e-12


def test_a_cubic_row_has_few_taps() -> None:
    matrix = axis_matrix(300, 410, 3)
    assert (matrix.dense() != 0).sum(axis=1).max() <= 34
    assert all(block.col_hi - block.col_lo < 50 for block in matrix.blocks)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 90))
def test_linear_taps_and_nearest_equal_scipy_bit_for_bit(n_in: int, n_out: int) -> None:
    if n_in == n_out:
        return
    signal = np.random.default_rng(n_out).normal(size=n_in)
    taps = linear_taps(n_in, n_out, split_border=True)
    assert np.array_equal(
        signal[taps.low] * taps.weight_low + signal[taps.high] * taps.weight_high, zoom(signal, n_out, 1)
    )
    assert np.array_equal(signal[nearest_index(n_in, n_out)], zoom(signal, n_out, 0))
    clamped = linear_taps(n_in, n_out)
    value = signal[clamped.low] * clamped.weight_low + signal[clamped.high] * clamped.weight_high
    assert np.abs(value - zoom(signal, n_out, 1)).max() < 1e-12
    assert np.all((clamped.nearest == clamped.low) | (clamped.nearest == clamped.high))


def test_halves_of_the_nearest_rule_go_up() -> None:
    # 4 -> 2: centres at 0.5 and 2.5 input voxels (scipy's floor(x + 0.5))
    assert nearest_index(4, 2).tolist() == [1, 3]


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_blas_runs_on_one_thread_once_a_matrix_was_applied() -> None:
    axis_matrix(8, 5, 1).apply(np.zeros((2, 8), np.float32), 1)
    assert blas_threads() == {1}
