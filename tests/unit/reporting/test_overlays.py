"""Overlays: the way volumes are turned, the slice that is shown, and what is enlarged."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segwright.core.dataset import load_dataset
from segwright.core.files import write_json
from segwright.core.geometry import Geometry
from segwright.evaluation.metrics import Counts
from segwright.evaluation.summary import CaseResult, make_summary
from segwright.images.readers import write_image, write_label
from segwright.reporting import overlays
from segwright.reporting.figures import overlay_plot
from segwright.reporting.overlays import _worst_slice, _zoom, anatomical_view, worst_overlays


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
    assert _worst_slice(reference, prediction, (1,), 0) == 1  # nothing is wrong: most of the structure
    prediction[3, 0, 0] = True
    assert _worst_slice(reference, prediction, (1,), 0) == 3


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


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_worst_slice_is_that_of_masks_of_the_whole_volume(axis: int) -> None:
    others = tuple(other for other in range(3) if other != axis)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        reference_zyx = (rng.integers(0, 5, (5, 6, 7)) * (rng.random((5, 6, 7)) < 0.3)).astype(np.uint8)
        prediction_zyx = reference_zyx.copy() if seed % 2 else rng.permuted(reference_zyx)
        masks = [np.isin(label_zyx, (2, 4)) for label_zyx in (reference_zyx, prediction_zyx)]
        wrong = (masks[0] != masks[1]).sum(axis=others)
        expected = np.argmax(wrong if wrong.any() else masks[0].sum(axis=others))
        assert _worst_slice(reference_zyx, prediction_zyx, (2, 4), axis) == expected


class Drawn:
    """A dataset of one case, and what its overlays are drawn from."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
        self.folder, self.views, self.outlines = folder, list[np.ndarray](), list[tuple[np.ndarray, np.ndarray]]()
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir(parents=True)
        labels = {"background": 0, "organ": 1}
        write_json(folder / "dataset.json", {"labels": labels, "numTraining": 1, **facts})
        monkeypatch.setattr(overlays, "overlay_plot", self._plot)

    def _plot(self, views: list[np.ndarray], outlines: list[tuple[np.ndarray, np.ndarray]], *_: object) -> bytes:
        self.views, self.outlines = views, outlines
        return b"png"

    def draw(self, reader: str) -> None:
        dataset = load_dataset(self.folder)
        name = f"labelsTr/a{dataset.file_ending}"
        summary = make_summary([CaseResult("a", {1: Counts(0, 0, 1, 9)}, name, name)], dataset.labels)
        worst_overlays(summary, self.folder / "summary.json", dataset, reader)


def test_views_are_made_of_the_first_channel_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(tmp_path, monkeypatch, channel_names={"0": "T1", "1": "T2"}, file_ending=".nrrd")
    grid = geometry(np.eye(3), (4, 50, 60), (3.0, 1.0, 1.0))
    image_zyx = np.random.default_rng(0).normal(size=grid.shape_zyx).astype(np.float32)
    label_zyx = np.zeros(grid.shape_zyx, np.uint8)
    label_zyx[2, 10:40, 5:50] = 1
    write_image(tmp_path / "imagesTr" / "a_0000.nrrd", image_zyx, grid, "SimpleITKIO")
    (tmp_path / "imagesTr" / "a_0001.nrrd").write_bytes(b"nobody reads this")
    write_label(tmp_path / "labelsTr" / "a.nrrd", label_zyx, grid, "SimpleITKIO")
    drawn.draw("SimpleITKIO")
    (view,), ((reference, prediction),) = drawn.views, drawn.outlines
    np.testing.assert_array_equal(view, image_zyx[2])  # small images are shown as they are
    np.testing.assert_array_equal(reference, label_zyx[2] == 1)
    np.testing.assert_array_equal(prediction, label_zyx[2] == 1)


def test_large_pictures_are_shrunk_and_what_is_small_stays_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(tmp_path, monkeypatch, channel_names={"0": "R", "1": "G", "2": "B"}, file_ending=".png")
    rows, columns = np.arange(3200)[:, None] % 251, np.arange(2000)[None] % 241
    colours = np.stack(np.broadcast_arrays(rows, columns, (rows + columns) % 256), axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "imagesTr" / "a_0000.png", compress_level=1)
    label_yx = np.zeros((3200, 2000), np.uint8)
    label_yx[2500, 1501] = 1  # between the rows and columns that are shown
    Image.fromarray(label_yx).save(tmp_path / "labelsTr" / "a.png")
    tracemalloc.start()
    drawn.draw("NaturalImage2DIO")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole, enlarged = drawn.views
    np.testing.assert_array_equal(whole, (colours[::3, ::3] / np.float32(255)).astype(np.float32))
    assert whole.shape == (1067, 667, 3) and whole.dtype == np.float32 and enlarged.shape == (24, 24, 3)
    assert [mask.sum() for mask, _ in drawn.outlines] == [1, 1]
    assert np.argwhere(drawn.outlines[0][0]).tolist() == [[2500 // 3, 1501 // 3]]
    assert drawn.outlines[1][0].shape == (24, 24)
    assert peak_bytes < 3 * colours.size * 4  # what the workflow's rule asks for: three times the image as float32


def test_a_large_structure_is_enlarged_to_as_many_pixels_at_most() -> None:
    mask = np.zeros((4000, 3500), bool)
    mask[100:3900:7] = True
    view = np.broadcast_to(np.float32(1), mask.shape)
    assert overlays._shrunk_mask(mask).shape == overlays._picture([view], None).shape == (1334, 1167)
    assert overlays._shrunk_mask(mask[:1500, :9]).shape == (1500, 9)
    np.testing.assert_array_equal(overlays._shrunk_mask(mask[:1500, :9]), mask[:1500, :9])
