"""Non-zero crop (method 2.1), against scipy's own hole filling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from segwright.core.cropping import crop_to_nonzero, fill_holes, nonzero_bounding_box, nonzero_box

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, share=st.floats(0, 1), seed=st.integers(0, 10_000))
def test_fill_holes_equals_scipy(shape: tuple[int, int, int], share: float, seed: int) -> None:
    mask_zyx = np.random.default_rng(seed).random(shape) < share
    assert np.array_equal(fill_holes(mask_zyx.copy()), ndimage.binary_fill_holes(mask_zyx))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.68, 0.9])
def test_fill_holes_of_many_voxels_equals_scipy(share: float) -> None:
    """More background voxels than are walked through one by one: around the share where holes and ways out meet."""
    mask_zyx = np.random.default_rng(1).random((25, 30, 35)) < share
    assert np.count_nonzero(~mask_zyx) > 1000
    assert np.array_equal(fill_holes(mask_zyx.copy()), ndimage.binary_fill_holes(mask_zyx))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, channels=st.integers(1, 3), share=st.floats(0, 0.6), seed=st.integers(0, 10_000))
def test_box_and_mask_equal_the_definition(shape: tuple[int, int, int], channels: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_czyx = np.where(rng.random((channels, *shape)) < share, rng.normal(size=(channels, *shape)), 0)
    filled_zyx = ndimage.binary_fill_holes((image_czyx != 0).any(0))
    box, mask_zyx = nonzero_bounding_box(image_czyx)
    if filled_zyx.any():
        where = np.argwhere(filled_zyx)
        expected = tuple((int(lo), int(hi)) for lo, hi in zip(where.min(0), where.max(0) + 1, strict=True))
        assert box == expected
        assert np.array_equal(mask_zyx, filled_zyx[tuple(slice(*edge) for edge in expected)])
    else:
        assert box == tuple((0, n) for n in shape)
        assert not mask_zyx.any() and mask_zyx.shape == shape


def _ring() -> NDArray[np.float32]:
    """A hollow cube of 3 voxels around one zero, one voxel away from the ends of a 5 x 6 x 7 image."""
    image_czyx = np.zeros((1, 5, 6, 7), np.float32)
    image_czyx[0, 1:4, 1:4, 1:4] = 2
    image_czyx[0, 2, 2, 2] = 0
    return image_czyx


def test_label_outside_the_mask_becomes_minus_one_but_foreground_stays() -> None:
    image_czyx = _ring()
    image_czyx[0, 1, 1, 1] = 0  # a corner of the box that the border reaches
    image_czyx[0, 1, 1, 2] = 0
    label_zyx = np.zeros((5, 6, 7), np.uint8)
    label_zyx[1, 1, 2] = 2
    image, label, box = crop_to_nonzero(image_czyx, label_zyx)
    assert box == ((1, 4), (1, 4), (1, 4)) and image.shape == (1, 3, 3, 3)
    assert label.dtype == np.int16
    assert label[0, 0, 0] == -1 and label[0, 0, 1] == 2
    assert label[1, 1, 1] == 0  # the hole counts as inside
    assert (label == -1).sum() == 1
    assert label_zyx.min() == 0  # the caller's array is untouched


def test_without_label_map_one_is_made() -> None:
    _, label, _ = crop_to_nonzero(_ring(), None)
    assert label.dtype == np.int8 and (label == 0).all()


def test_nothing_zero_keeps_everything() -> None:
    image_czyx = np.ones((2, 3, 4, 5), np.float32)
    label_zyx = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    image, label, box = crop_to_nonzero(image_czyx, label_zyx)
    assert box == ((0, 3), (0, 4), (0, 5))
    assert np.shares_memory(image, image_czyx)
    assert np.array_equal(label, label_zyx) and label.dtype == np.int32


@pytest.mark.parametrize("value", [np.nan, -1e-30])
def test_nan_and_tiny_values_are_not_zero(value: float) -> None:
    image_czyx = np.zeros((1, 3, 3, 3), np.float32)
    image_czyx[0, 1, 2, 0] = value
    assert nonzero_box(image_czyx) == ((1, 2), (2, 3), (0, 1))
