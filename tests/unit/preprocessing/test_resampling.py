"""Images against scikit-image and scipy as nnU-Net v2 calls them (method 4.5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segwright.core.plans import RESAMPLE_IMAGE, RESAMPLE_LABEL, Resampling
from segwright.preprocessing.resampling import new_shape_after, resample_image, resample_label, separate_z_axis

from . import reference

ISOTROPIC = (1.0, 1.0, 1.0)
extents = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24))


def random_volume(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(extents, extents, st.sampled_from([0, 1, 3]))
def test_resize_equals_scikit_image(shape: tuple[int, int, int], new: tuple[int, int, int], order: int) -> None:
    volume = random_volume(shape)
    ours = resample_image(volume[None], new, ISOTROPIC, ISOTROPIC, Resampling(False, order))
    assert ours.dtype == np.float32
    assert ours.shape == (1, *new)
    if shape != new:
        assert np.abs(ours[0] - reference.resize_image(volume, new, order)).max() < 5e-6


def test_cubic_is_scipys_zoom_clipped_to_the_range_of_the_input() -> None:
    volume = np.sign(random_volume((20, 24, 18)))
    zoomed = ndimage.zoom(volume.astype(float), (31 / 20, 17 / 24, 29 / 18), order=3, mode="nearest", grid_mode=True)
    ours = resample_image(volume[None], (31, 17, 29), ISOTROPIC, ISOTROPIC, RESAMPLE_IMAGE)[0]
    assert np.abs(ours - np.clip(zoomed, volume.min(), volume.max())).max() < 5e-6
    assert np.abs(ours - zoomed).max() > 0.05, "the clip matters"
    assert ours.min() >= volume.min()
    assert ours.max() <= volume.max()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("n_along", [6, 3, 11])
@pytest.mark.parametrize("order_z", [0, 1])
def test_separate_axis_resizes_slices_then_takes_along_the_axis(axis: int, n_along: int, order_z: int) -> None:
    shape, new = [20, 17, 19], [31, 12, 29]
    shape[axis], new[axis] = 6, n_along
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    volume = random_volume(tuple(shape))
    ours = resample_image(volume[None], new, spacing, spacing, Resampling(False, 3, order_z))[0]
    expected = reference.resample(volume, new, axis, reference.resize_image, 3, order_z)
    assert np.abs(ours - expected).max() < 5e-6


def test_method_example_of_separate_z() -> None:
    # method 15: (6,20,24) -> (11,31,29), spacing 5,1,1 -> 2.7,.65,.83
    volume = random_volume((6, 20, 24))
    ours = resample_image(volume[None], (11, 31, 29), (5, 1, 1), (2.7, 0.65, 0.83), RESAMPLE_IMAGE)[0]
    per_slice = np.stack([reference.resize_image(piece, (31, 29), 3) for piece in volume])
    nearest = np.clip(np.floor((np.arange(11) + 0.5) * 6 / 11).astype(int), 0, 5)
    assert np.abs(ours - per_slice[nearest]).max() < 5e-6


def test_large_values_are_as_exact_as_float32_can_be() -> None:
    volume = random_volume((12, 14, 16)) * 1e5
    ours = resample_image(volume[None], (17, 9, 21), ISOTROPIC, ISOTROPIC, RESAMPLE_IMAGE)[0]
    expected = reference.resize_image(volume, (17, 9, 21), 3).astype(np.float32)
    assert np.abs(ours - expected).max() <= np.spacing(np.float32(4e5))


@pytest.mark.parametrize("new", [(48, 80, 110), (33, 80, 110), (40, 80, 110), (48, 90, 100), (33, 90, 100)])
@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["float32", "float64"])
def test_a_volume_that_goes_through_the_cache_in_parts(new: tuple[int, int, int], scale: float) -> None:
    volume = random_volume((40, 90, 100)) * np.float32(scale)  # 1.4 MB
    ours = resample_image(volume[None], new, ISOTROPIC, ISOTROPIC, RESAMPLE_IMAGE)[0]
    assert np.abs(ours - reference.resize_image(volume, new, 3)).max() < 5e-6 * scale


def test_equal_shape_is_returned_as_it_is() -> None:
    volume = random_volume((2, 5, 6, 7))
    assert resample_image(volume, (5, 6, 7), (5, 1, 1), (4, 1, 1), RESAMPLE_IMAGE) is volume
    label = np.ones((5, 6, 7), np.int8)
    assert resample_label(label, (5, 6, 7), (5, 1, 1), (4, 1, 1), RESAMPLE_LABEL) is label


def test_input_is_not_changed_and_need_not_be_contiguous() -> None:
    volume = random_volume((9, 8, 7)).transpose(2, 0, 1)
    before = volume.copy()
    ours = resample_image(volume[None], (10, 11, 12), ISOTROPIC, ISOTROPIC, RESAMPLE_IMAGE)
    assert np.array_equal(volume, before)
    contiguous = resample_image(before[None], (10, 11, 12), ISOTROPIC, ISOTROPIC, RESAMPLE_IMAGE)
    assert np.array_equal(ours, contiguous)


@pytest.mark.parametrize(
    ("current", "new", "force", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None, None),
        ((3, 1, 1), (1, 1, 1), None, None),  # exactly 3 is not anisotropic
        ((3.1, 1, 1), (1, 1, 1), None, 0),
        ((1, 1, 1), (1, 4, 1), None, 1),
        ((1, 5, 1), (1, 1, 9), None, 1),  # the current spacing is asked first
        ((0.24, 1.25, 1.25), (1, 1, 1), None, None),  # two coarsest axes
        ((1, 2, 1), (1, 1, 1), True, 1),
        ((1, 1, 1), (9, 1, 1), True, None),
        ((9, 1, 1), (1, 1, 1), False, None),
        ((999, 1, 1), (999, 2, 2), None, 0),  # 2-D images
    ],
)
def test_which_axis_is_separate(current: tuple, new: tuple, force: bool | None, axis: int | None) -> None:
    assert separate_z_axis(current, new, force) == axis


def test_new_shape_rounds_halves_to_even_in_this_order_of_operations() -> None:
    assert new_shape_after((5, 7, 10), (1.0, 1.0, 0.75), (2.0, 2.0, 1.0)) == (2, 4, 8)  # 2.5, 3.5, 7.5


@settings(deadline=None, max_examples=15)
@given(extents, extents, st.sampled_from(["argmax", "threshold"]))
def test_label_maps_with_a_separate_axis(shape: tuple, new: tuple, rule: str) -> None:
    label = np.random.default_rng(1).integers(-1, 4, shape).astype(np.int8)
    ours = resample_label(label, new, (4, 1, 1), (4, 1, 1), RESAMPLE_LABEL, rule)
    expected = reference.resample(
        label, new, 0, lambda piece, extent, order: reference.resize_label(piece, extent, 1, rule), 1
    )
    assert ours.dtype == np.int8
    assert np.array_equal(ours, expected)


def test_label_maps_along_the_axis_with_order_1() -> None:
    label = np.random.default_rng(1).integers(-1, 4, (6, 8, 9)).astype(np.int16)
    ours = resample_label(label, (11, 5, 13), (4, 1, 1), (4, 1, 1), Resampling(True, 1, 1))
    assert np.array_equal(ours, reference.resample(label, (11, 5, 13), 0, reference.resize_label, 1, 1))
