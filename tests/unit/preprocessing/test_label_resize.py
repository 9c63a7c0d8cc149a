"""Label maps: not one voxel may differ from interpolating every label's indicator (method 4.5)."""

from __future__ import annotations

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.preprocessing.label_resize import resize_labels

from . import reference
from .conftest import blobs

extents = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))


@settings(deadline=None, max_examples=60)
@given(extents, extents, st.integers(1, 7), st.sampled_from(["argmax", "threshold"]))
def test_noise_equals_the_reference(shape: tuple, new: tuple, labels: int, rule: str) -> None:
    label = np.random.default_rng(labels).integers(-1, labels, shape).astype(np.int8)
    assert np.array_equal(resize_labels(label, new, 1, rule), reference.resize_label(label, new, 1, rule))


@settings(deadline=None, max_examples=25)
@given(extents, st.tuples(*[st.sampled_from([1, 2, 3, 4])] * 3), st.booleans())
def test_whole_factors_where_every_boundary_is_a_tie(shape: tuple, factors: tuple, shrink: bool) -> None:
    """Even factors put sample points exactly between labels: the tie rule decides all of these voxels."""
    new = tuple(extent * factor for extent, factor in zip(shape, factors, strict=True))
    old, new = (new, shape) if shrink else (shape, new)
    label = np.random.default_rng(7).integers(-1, 4, old).astype(np.int16)
    assert np.array_equal(resize_labels(label, new, 1), resize_segmentation(label, new, 1))
    assert np.array_equal(resize_labels(label, new, 1), reference.resize_label(label, new, 1))


@pytest.mark.parametrize("new", [(33, 41, 29), (60, 80, 50), (15, 18, 22), (30, 70, 44)])
def test_organs_equal_batchgenerators(new: tuple[int, int, int]) -> None:
    label = blobs((30, 40, 25), 6, 3).astype(np.int8) - 1
    assert np.array_equal(resize_labels(label, new, 1), resize_segmentation(label, new, 1))
    assert np.array_equal(resize_labels(label, new, 0), resize_segmentation(label, new, 0))


def test_ties_go_to_the_nearest_label_or_else_to_the_smallest() -> None:
    # one voxel at the centre of a 2x2x2 block: 1 and 2 score 0.375, the nearest (last) corner is a 3 with 0.25
    block = np.array([3, 1, 1, 1, 2, 2, 2, 3], np.int8).reshape(2, 2, 2)
    assert resize_labels(block, (1, 1, 1), 1).item() == 1
    assert resize_labels(np.array([[1, 2]], np.int8), (1, 1), 1).item() == 2  # both 0.5, the second is nearest
    assert resize_labels(block, (1, 1, 1), 1, "threshold").item() == 0  # nothing reaches 0.5


def test_threshold_prefers_the_larger_label_and_leaves_zero() -> None:
    assert resize_labels(np.array([[1, 2]], np.int8), (1, 1), 1, "threshold").item() == 2
    assert resize_labels(np.array([[2, 1]], np.int8), (1, 1), 1, "threshold").item() == 2
    assert resize_labels(np.array([[-1, -1]], np.int8), (1, 3), 1, "threshold").tolist() == [[-1, -1, -1]]


def test_spline_indicators_follow_the_reference_up_to_rounding() -> None:
    label = np.random.default_rng(3).integers(-1, 4, (11, 12, 13)).astype(np.int8)
    for rule in ("argmax", "threshold"):
        differs = resize_labels(label, (17, 9, 20), 3, rule) != reference.resize_label(label, (17, 9, 20), 3, rule)
        assert differs.mean() < 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_dtype_and_extreme_values_are_kept(dtype: type) -> None:
    limits = np.iinfo(dtype)
    label = np.full((6, 6, 6), limits.min, dtype)
    label[2:4] = limits.max
    label[4:] = 5
    resized = resize_labels(label, (9, 9, 9), 1)
    assert resized.dtype == dtype
    assert np.array_equal(resized, reference.resize_label(label, (9, 9, 9), 1))


def test_slabs_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.random.default_rng(3).integers(-1, 4, (14, 12, 13)).astype(np.int8)
    whole = resize_labels(label, (20, 17, 9), 1)
    monkeypatch.setattr("segwright.preprocessing.label_resize._SLAB_VOXELS", 400)
    monkeypatch.setattr("segwright.preprocessing.label_resize._CHUNK_VOXELS", 50)
    assert np.array_equal(resize_labels(label, (20, 17, 9), 1), whole)
