"""Patch ranges of method 6.1; values [RUN] there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segwright.training.augmentation.ranges import rotation_matrix, spatial_ranges


@pytest.mark.parametrize(
    ("patch", "loader"),
    [
        ((40, 56, 40), (73, 80, 64)),
        ((128, 128, 128), (205, 205, 205)),
        ((80, 192, 160), (194, 289, 210)),
        ((20, 320, 256), (20, 376, 376)),
        ((56, 40), (65, 65)),
        ((512, 512), (602, 602)),
        ((320, 160), (412, 188)),
    ],
)
def test_loader_patch_sizes(patch: tuple[int, ...], loader: tuple[int, ...]) -> None:
    assert spatial_ranges(patch).loader_patch_size == loader


@pytest.mark.parametrize(
    ("patch", "degrees", "in_plane", "axes"),
    [
        ((56, 40), 180, False, (0, 1)),
        ((60, 40), 180, False, (0, 1)),
        ((320, 160), 15, False, (0, 1)),
        ((40, 120, 100), 30, False, (0, 1, 2)),
        ((40, 121, 100), 180, True, (0, 1, 2)),
    ],
)
def test_ranges_by_shape(patch: tuple[int, ...], degrees: float, in_plane: bool, axes: tuple[int, ...]) -> None:
    ranges = spatial_ranges(patch)
    assert ranges.rotation_rad == pytest.approx(math.radians(degrees))
    assert (ranges.in_plane, ranges.flip_axes) == (in_plane, axes)


def test_rotations_turn_about_their_axis_and_combine_in_the_order_x_y_z() -> None:
    quarter = math.pi / 2
    assert rotation_matrix((quarter, 0, 0)) @ [0, 1, 0] == pytest.approx([0, 0, 1], abs=1e-12)
    assert rotation_matrix((0, quarter, 0)) @ [0, 0, 1] == pytest.approx([1, 0, 0], abs=1e-12)
    assert rotation_matrix((0, 0, quarter)) @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-12)
    assert rotation_matrix((quarter, quarter, 0)) @ [0, 1, 0] == pytest.approx([1, 0, 0], abs=1e-12)  # first about 0
    assert np.allclose(rotation_matrix((quarter,)) @ [1, 0], [0, 1])
