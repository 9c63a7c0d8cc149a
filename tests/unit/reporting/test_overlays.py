"""Overlays: the way volumes are turned, the slice that is shown, and what is enlarged."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from segwright.core.geometry import Geometry
from segwright.reporting.figures import overlay_plot
from segwright.reporting.overlays import _worst_slice, _zoom, anatomical_view


def geometry(direction: np.ndarray, shape=(4, 5, 6), spacing=(1.0, 1.0, 1.0)) -> Geometry:
    return Geometry(shape, spacing, (0.0, 0.0, 0.0), tuple(direction.astype(float).ravel()))


def all_orientations() -> list[np.ndarray]:
    """The 48 axis-parallel direction matrices (columns: image axes x, y, z; rows: patient axes)."""
    return [
        np.eye(3)[:, list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slice_is_shown_the_same_way_however_the_volume_is_stored(plane: str) -> None:
    left, back, head = np.meshgrid(np.arange(4), np.arange(4), np.arange(4), indexing="ij")
    position = left + 10 * back + 100 * head  # patient coordinates, as one number a voxel
    across = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    expected = {
        # rows go to the back or the feet, columns to the left or the back
        "axial": position[:, :, 0].T,
        "coronal": position[:, 0, ::-1].T,
        "sagittal": position[0, :, ::-1].T,
    }[plane]
    for direction in all_orientations():
        axis_of_patient = [int(np.flatnonzero(direction[row])[0]) for row in range(3)]  # image axis along left, ...
        stored_xyz = np.moveaxis(position, [0, 1, 2], axis_of_patient)
        for row, axis in enumerate(axis_of_patient):
            if direction[row, axis] < 0:
                stored_xyz = np.flip(stored_xyz, axis)
        spacing_xyz = np.ones(3)
        spacing_xyz[axis_of_patient[across]] = 3.0
        view = anatomical_view(geometry(direction, (4, 4, 4), tuple(spacing_xyz[::-1])))
        assert view.plane == plane
        first = 0 if direction[across, axis_of_patient[across]] > 0 else 3
        np.testing.assert_array_equal(view.slice(stored_xyz.T, first), expected)
        assert view.aspect == 1.0


def test_nearly_equal_spacings_are_shown_axially() -> None:
    view = anatomical_view(geometry(np.eye(3), spacing=(1.0, 1.2, 1.1)))
    assert (view.axis, view.plane) == (0, "axial") and view.aspect == pytest.approx(1.2 / 1.1)


def test_oblique_volumes_get_the_nearest_view() -> None:
    angle = np.deg2rad(30)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    view = anatomical_view(geometry(turned))
    assert (view.plane, view.swap, view.flip_rows, view.flip_columns) == ("axial", False, False, False)


def test_pictures_stay_as_they_are() -> None:
    picture = Geometry((1, 5, 6), (999.0, 2.0, 1.0), (0.0, 0.0), (-1.0, 0.0, 0.0, -1.0), dimension=2)
    view = anatomical_view(picture)
    array = np.arange(30).reshape(1, 5, 6)
    np.testing.assert_array_equal(view.slice(array, 0), array[0])
    assert view.aspect == 2.0


def test_the_slice_with_most_mistakes_is_shown() -> None:
    reference, prediction = np.zeros((2, 4, 5, 5), bool)
    reference[1, :2, :2] = True
    prediction[1, :2, :2] = True
    assert _worst_slice(reference, prediction, 0) == 1  # nothing is wrong: most of the structure
    prediction[3, 0, 0] = True
    assert _worst_slice(reference, prediction, 0) == 3


def test_small_structures_are_enlarged_within_the_slice() -> None:
    mask = np.zeros((200, 100), bool)
    mask[196:199, 2:5] = True
    ((rows, columns),) = _zoom(mask, aspect=2.0)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (12, 24)  # as tall as wide in millimetres
    assert rows.stop == 200 and columns.start == 0 and mask[rows, columns].sum() == 9
    assert _zoom(np.ones((200, 100), bool), 1.0) == [] == _zoom(np.zeros((200, 100), bool), 1.0)


@pytest.mark.parametrize("colour", [False, True])
def test_pictures_are_drawn_for_any_mask(colour: bool) -> None:
    grey = np.linspace(0, 1, 30 * 40, dtype=np.float32).reshape(30, 40)
    view = np.stack([grey] * 3, -1) if colour else grey
    empty, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    made = overlay_plot([view, view[:10, :10]], [(empty, full), (empty[:10, :10], full[:10, :10])], 1.0)
    assert made.startswith(b"\x89PNG")
    assert made == overlay_plot([view, view[:10, :10]], [(empty, full), (empty[:10, :10], full[:10, :10])], 1.0)


def test_a_constant_slice_can_be_drawn() -> None:
    assert overlay_plot([np.zeros((5, 5), np.float32)], [(np.eye(5, dtype=bool),) * 2], 3.0).startswith(b"\x89PNG")
