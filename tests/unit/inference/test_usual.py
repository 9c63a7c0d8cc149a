"""Images on a grid far from that of the training images are told, others are not."""

from __future__ import annotations

import math

import pytest

from segwright.core.geometry import Geometry
from segwright.core.plans import Plans
from segwright.inference.usual import UsualGrid

Grid = tuple[float, ...]
VOLUMES = ((12, 60, 80), (3.0, 1.0, 0.5))
SLICES = ((1, 500, 400), (999.0, 1.0, 1.0))
IN_3D, IN_2D = [(8, 8, 8)], [(8, 8)]


def usual(
    median: tuple[Grid, Grid], patches: list[tuple[int, ...]], forward: tuple[int, ...] = (0, 1, 2)
) -> UsualGrid | None:
    """Of plans with these medians, given in the axes of the files."""
    shape, spacing = median
    record = {
        "dataset_name": "D",
        "plans_name": "P",
        "original_median_shape_after_transp": [shape[axis] for axis in forward],
        "original_median_spacing_after_transp": [spacing[axis] for axis in forward],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(forward),
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "configurations": {},
        "foreground_intensity_properties_per_channel": {},
    }
    return UsualGrid.of_plans(Plans.from_json(record), patches)


def difference(found: UsualGrid | None, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> str | None:
    assert found is not None
    return found.difference(Geometry(shape, spacing, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)))


@pytest.mark.parametrize("forward", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(
    ("spacing", "is_told"),
    [
        ((3.0, 1.0, 0.5), False), ((1.0, 1.0, 1.0), False), ((14.0, 4.9, 2.4), False), ((0.61, 0.21, 0.11), False),
        ((30.0, 10.0, 5.0), True), ((3.0, 1.0, 2.6), True), ((0.5, 1.0, 0.5), True), ((1.0, 1.0, 0.01), True),
    ],
)  # fmt: skip
def test_voxels_five_times_off_are_told(
    forward: tuple[int, ...], spacing: tuple[float, float, float], is_told: bool
) -> None:
    told = difference(usual(VOLUMES, IN_3D, forward), (10, 10, 10), spacing)
    assert (told is not None) == is_told
    if told is not None:
        given = " x ".join(f"{edge:g}" for edge in spacing)
        assert told.startswith(f"has voxels of {given} mm (z, y, x), far from the 3 x 1 x 0.5 mm (median)")


def test_a_single_slice_is_told_where_a_network_sees_volumes() -> None:
    one_slice = ((1, 60, 80), (999.0, 1.0, 0.5))
    for patches in (IN_3D, IN_2D + IN_3D):
        assert str(difference(usual(VOLUMES, patches), *one_slice)).startswith(
            "is a single slice (1 x 60 x 80 voxels), but the model was trained on volumes (median 12 x 60 x 80)"
        )
    assert difference(usual(VOLUMES, IN_2D), *one_slice) is None  # it sees slices anyway
    assert difference(usual(SLICES, IN_2D), *one_slice) is None
    assert difference(usual(SLICES, IN_2D), (1, 60, 80), (1.0, 9.0, 9.0)) is not None


def test_the_slices_of_a_2d_network_run_along_its_first_axis() -> None:
    sagittal = usual(VOLUMES, IN_2D, (2, 0, 1))
    assert difference(sagittal, (12, 60, 1), (3.0, 1.0, 50.0)) is None
    assert difference(sagittal, (1, 60, 80), (3.0, 1.0, 0.5)) is not None


@pytest.mark.parametrize(
    "median", [((12, 60, 0), VOLUMES[1]), (VOLUMES[0], (1.0, 1.0, math.inf)), (VOLUMES[0], (math.nan,) * 3)]
)
def test_impossible_medians_say_nothing(median: tuple[Grid, Grid]) -> None:
    assert usual(median, IN_3D) is None
