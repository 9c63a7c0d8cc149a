"""Label-first export against interpolating every channel with scipy and deciding afterwards (method 4.5, 10.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segwright.core.errors import PlansError
from segwright.core.plans import RESAMPLE_LOGITS, Resampling
from segwright.inference import interpolation
from segwright.inference.interpolation import (
    interpolate_slabs,
    linear_axis,
    nearest_axis,
    region_labels,
    resampling_axes,
    slabs_of,
    winning_labels,
)

ISOTROPIC, THICK = (1.0, 1.0, 1.0), (5.0, 1.0, 1.0)


def reference(scores: np.ndarray, shape: Sequence[int], slices: bool) -> np.ndarray:
    """Every channel resampled in float64: plain, or slice by slice and then nearest along z."""
    if not slices:
        factors = np.array(shape) / scores.shape[1:]
        return np.stack([_zoom(channel, factors) for channel in scores])
    factors = np.array(shape[1:]) / scores.shape[2:]
    planes = np.stack([[_zoom(plane, factors) for plane in channel] for channel in scores])
    z = (np.arange(shape[0]) + 0.5) * scores.shape[1] / shape[0] - 0.5
    grid = np.meshgrid(z, *(np.arange(n) for n in shape[1:]), indexing="ij")
    return np.stack([ndimage.map_coordinates(channel, grid, order=0, mode="nearest") for channel in planes])


def _zoom(array: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return ndimage.zoom(array.astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)


def smooth_scores(outputs: int, shape: Sequence[int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(outputs, *shape))
    return ndimage.gaussian_filter(noise, (0, 1, 1, 1)).astype(np.float32)


edges = st.integers(1, 9)


@given(
    outputs=st.integers(1, 6),
    shape=st.tuples(edges, edges, edges),
    new=st.tuples(st.integers(1, 17), st.integers(1, 17), st.integers(1, 17)),
    slices=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_labels_equal_interpolating_everything(
    outputs: int, shape: tuple[int, ...], new: tuple[int, ...], slices: bool, seed: int
) -> None:
    scores = smooth_scores(outputs, shape, seed)
    spacing = THICK if slices else ISOTROPIC
    axes = resampling_axes(shape, new, spacing, spacing, RESAMPLE_LOGITS)
    full = reference(scores, new, slices)
    np.testing.assert_array_equal(winning_labels(scores, axes, "uint8"), full.argmax(axis=0))
    order = list(range(outputs, 0, -1))
    expected = np.zeros(new, np.uint8)
    for region, value in enumerate(order):
        expected[full[region] > 0] = value
    np.testing.assert_array_equal(region_labels(scores, axes, order, 0.0, "uint8"), expected)


@pytest.mark.parametrize("slices", [False, True])
def test_slabs_equal_interpolating_everything(slices: bool) -> None:
    scores = smooth_scores(3, (6, 7, 5), 1)
    spacing = THICK if slices else ISOTROPIC
    axes = resampling_axes((6, 7, 5), (13, 9, 11), spacing, spacing, RESAMPLE_LOGITS)
    parts = []
    for start in range(0, 13, 4):
        stop = min(start + 4, 13)
        first, last = axes[0].inputs_of(start, stop)
        parts.append(interpolate_slabs(scores[:, first:last], axes, start, stop, first_plane=first))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), reference(scores, (13, 9, 11), slices), atol=1e-6)


def test_small_slabs_and_many_classes_give_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(3).normal(size=(20, 7, 6, 5)).astype(np.float32)  # noise: every cell is mixed
    axes = resampling_axes((7, 6, 5), (15, 13, 12), ISOTROPIC, ISOTROPIC, RESAMPLE_LOGITS)
    whole = winning_labels(scores, axes, "uint16")
    monkeypatch.setattr(interpolation, "_SLAB_VALUES", 200)
    np.testing.assert_array_equal(winning_labels(scores, axes, "uint16"), whole)
    np.testing.assert_array_equal(whole, reference(scores, (15, 13, 12), False).argmax(axis=0))
    assert len(list(slabs_of(axes, 20))) == 15


def test_the_first_of_equal_classes_wins() -> None:
    scores = np.zeros((3, 2, 2, 2), np.float32)
    scores[1:] = 1  # classes 1 and 2 tie everywhere
    scores[0, 0] = 2  # and class 0 wins in the first plane
    axes = resampling_axes((2, 2, 2), (8, 2, 2), ISOTROPIC, ISOTROPIC, RESAMPLE_LOGITS)
    assert winning_labels(scores, axes, "uint8")[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_only_mixed_cells_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.zeros((2, 20, 4, 4), np.float32)
    scores[1, 10:] = 1
    scores[0, :10] = 1
    axes = resampling_axes((20, 4, 4), (40, 8, 8), ISOTROPIC, ISOTROPIC, RESAMPLE_LOGITS)
    seen = []
    original = interpolation._best_of_mixed
    monkeypatch.setattr(
        interpolation, "_best_of_mixed", lambda scores, at: seen.append(at.count) or original(scores, at)
    )
    labels = winning_labels(scores, axes, "uint8")
    assert seen == [2 * 8 * 8]  # the two output planes between the input planes 9 and 10
    assert (labels[:20] == 0).all() and (labels[20:] == 1).all()


def test_equal_shapes_are_copied() -> None:
    scores = smooth_scores(4, (3, 4, 5), 2)
    axes = resampling_axes((3, 4, 5), (3, 4, 5), ISOTROPIC, (2.0, 1.0, 1.0), RESAMPLE_LOGITS)
    assert all(axis.weight is None for axis in axes)
    np.testing.assert_array_equal(winning_labels(scores, axes, "uint8"), scores.argmax(axis=0))
    np.testing.assert_array_equal(interpolate_slabs(scores, axes, 0, 3), scores)


def test_axes_stay_within_the_input() -> None:
    axis = linear_axis(4, 10)
    assert axis.lower.min() == 0 and axis.lower.max() == 2
    assert axis.weight is not None and axis.weight.min() >= 0 and axis.weight.max() <= 1
    assert nearest_axis(4, 2).lower.tolist() == [1, 3]  # (i + 0.5) * 2 - 0.5 = 0.5, 2.5; halves go up


def test_cubic_scores_are_refused() -> None:
    with pytest.raises(PlansError, match="order 0 or 1"):
        resampling_axes((2, 2, 2), (3, 3, 3), ISOTROPIC, ISOTROPIC, Resampling(is_seg=False, order=3))
