"""The worst cases of each structure as pictures: the slice where reference and prediction differ most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.dataset import Dataset
from segwright.core.geometry import Geometry
from segwright.core.labels import LabelKey, key_values
from segwright.evaluation.metrics import Counts
from segwright.evaluation.summary import CaseResult, Summary
from segwright.images.readers import read_image, read_label
from segwright.reporting.figures import overlay_plot

WORST = 3
_ANISOTROPIC = 1.5  # from this ratio of spacings on, slices are cut across the coarsest axis
_ZOOM_BELOW = 0.4  # a structure smaller than this share of the slice's edges is also shown enlarged
_ZOOM_MARGIN = 0.6  # of the structure's extent, on each side
_ZOOM_LEAST = 24  # voxels
_MOST_PIXELS = 1500  # along an edge of a view: three times what the plot shows
_PLANES = ("sagittal", "coronal", "axial")  # by the patient axis (x, y, z in ITK's LPS) across which they lie


@dataclass(frozen=True)
class Overlay:
    """One picture and what it shows."""

    key: LabelKey
    case_id: str
    counts: Counts
    slice_text: str
    voxel_ml: float | None
    png: bytes

    @property
    def dice(self) -> float:
        return self.counts.dice

    @property
    def size_text(self) -> str:
        """The structure's size in reference and prediction, in ml (3-D) or pixels."""
        sizes = [self.counts.tp + self.counts.fn, self.counts.tp + self.counts.fp]
        if self.voxel_ml is None:
            shown = [f"{size} pixels" for size in sizes]
        else:
            shown = [f"{size * self.voxel_ml:.3g} ml" for size in sizes]
        reference = f"reference {shown[0]}" if sizes[0] else "not in the reference"
        return f"{reference}, {f'predicted {shown[1]}' if sizes[1] else 'not predicted'}"


def worst_overlays(
    summary: Summary, summary_file: Path, dataset: Dataset, reader: str, window: tuple[float, float] | None = None
) -> list[Overlay]:
    """Pictures of the three cases with the lowest Dice of every structure: structures in order, worst case first.

    Cases in which a structure neither occurs nor is predicted have no Dice and are left out. A case that is worst in
    several structures is read once. ``window``: intensities shown black and white, else by each slice's own.
    """
    wanted: list[tuple[LabelKey, CaseResult]] = []
    for key in summary.keys:
        scored = [case for case in summary.cases if not np.isnan(case.counts[key].dice)]
        worst = sorted(scored, key=lambda case: (case.counts[key].dice, case.case_id))[:WORST]
        wanted.extend((key, case) for case in worst)
    drawn: dict[tuple[LabelKey, str], Overlay] = {}
    for case in {case.case_id: case for _, case in wanted}.values():
        keys = [key for key, other in wanted if other.case_id == case.case_id]
        for overlay in _overlays(case, keys, summary_file, dataset, reader, window):
            drawn[overlay.key, overlay.case_id] = overlay
    return [drawn[key, case.case_id] for key, case in wanted]


def _overlays(
    case: CaseResult,
    keys: list[LabelKey],
    summary_file: Path,
    dataset: Dataset,
    reader: str,
    window: tuple[float, float] | None,
) -> Iterator[Overlay]:
    files = dataset.training_case(case.case_id).image_files
    reference_zyx = read_label(dataset.folder / case.reference_name, reader).array_zyx
    prediction_zyx = read_label(summary_file.parent / case.prediction_name, reader).array_zyx
    image = read_image(files[:1], reader)  # other channels are not shown
    geometry = image.geometry
    view = anatomical_view(geometry)
    colour = geometry.dimension == 2 and len(files) == 1 and len(image.array_czyx) == 3
    channels_czyx = image.array_czyx if colour else image.array_czyx[:1]
    brightest = max(255.0, float(channels_czyx.max())) if colour else None
    voxel_ml = None if geometry.dimension == 2 else float(np.prod(geometry.spacing_zyx)) / 1000
    for key in keys:
        values = key_values(key)
        index = _worst_slice(reference_zyx, prediction_zyx, values, view.axis)
        reference, prediction = (
            _mask(view.slice(label_zyx, index), values) for label_zyx in (reference_zyx, prediction_zyx)
        )
        channels = [view.slice(channel_zyx, index) for channel_zyx in channels_czyx]
        boxes = [(slice(None), slice(None)), *_zoom(reference | prediction, view.aspect)]
        png = overlay_plot(
            [_picture([channel[box] for channel in channels], brightest) for box in boxes],
            [(_shrunk_mask(reference[box]), _shrunk_mask(prediction[box])) for box in boxes],
            view.aspect,
            window,
        )
        count = geometry.shape_zyx[view.axis]
        text = f"{view.plane} slice {index + 1} of {count}" if geometry.dimension == 3 else "whole picture"
        yield Overlay(key, case.case_id, case.counts[key], text, voxel_ml, png)


@dataclass(frozen=True)
class View:
    """How a volume is shown: the array axis across which slices are cut, then how a slice is turned.

    Attributes:
        swap: rows and columns change places.
        flip_rows, flip_columns: after that.
        aspect: height of a shown voxel divided by its width.
    """

    axis: int
    plane: str
    swap: bool
    flip_rows: bool
    flip_columns: bool
    aspect: float

    def slice(self, array_zyx: NDArray[Any], index: int) -> NDArray[Any]:
        """One slice of a volume, as it is shown, without a copy: (rows, columns)."""
        made = np.moveaxis(array_zyx, self.axis, 0)[index]
        made = made.T if self.swap else made
        return made[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def anatomical_view(geometry: Geometry) -> View:
    """The view radiologists are used to: axial unless another axis is much coarser; head up, face up or to the left,
    the patient's left on the right. Pictures (2-D) stay as they are.
    """
    spacing = geometry.spacing_zyx
    if geometry.dimension == 2:
        return View(0, "", False, False, False, spacing[1] / spacing[2])
    direction = np.asarray(geometry.direction_xyz, dtype=float).reshape(3, 3)
    patient_axis, sign = _nearest_axes(direction)
    across = int(np.argmax(spacing))
    if max(spacing) < _ANISOTROPIC * sorted(spacing)[1]:
        across = next(axis for axis in range(3) if patient_axis[axis] == 2)
    rows, columns = (axis for axis in range(3) if axis != across)
    # Columns run to the patient's left (axial, coronal) or back (sagittal); rows to the back (axial) or the feet.
    columns_along = {2: 0, 1: 0, 0: 1}[patient_axis[across]]
    swap = patient_axis[columns] != columns_along
    if swap:
        rows, columns = columns, rows
    rows_down = -1 if patient_axis[rows] == 2 else 1
    return View(
        axis=across,
        plane=_PLANES[patient_axis[across]],
        swap=swap,
        flip_rows=sign[rows] != rows_down,
        flip_columns=sign[columns] != 1,
        aspect=spacing[rows] / spacing[columns],
    )


def _nearest_axes(direction: NDArray[np.float64]) -> tuple[dict[int, int], dict[int, int]]:
    """For each array axis (z, y, x) the patient axis (0 left, 1 back, 2 head) nearest to it, and in which sense.

    Each patient axis is given once, best agreement first, so that oblique volumes get a view too.
    """
    patient_axis: dict[int, int] = {}
    sign: dict[int, int] = {}
    strength = np.abs(direction)  # rows: patient axes, columns: image axes x, y, z
    for _ in range(3):
        row, column = np.unravel_index(int(np.argmax(strength)), strength.shape)
        patient_axis[2 - int(column)] = int(row)
        sign[2 - int(column)] = 1 if direction[row, column] >= 0 else -1
        strength[row, :] = strength[:, column] = -1
    return patient_axis, sign


def _mask(label: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label map has one of the values; one byte a voxel, where np.isin takes up to ten."""
    mask: NDArray[np.bool_] = label == values[0]
    for value in values[1:]:
        mask |= label == value
    return mask


def _worst_slice(reference_zyx: NDArray[Any], prediction_zyx: NDArray[Any], values: Sequence[int], axis: int) -> int:
    """The slice with most wrong voxels; where nothing is wrong, the one that shows most of the structure."""
    if reference_zyx.shape[axis] == 1:
        return 0
    others = tuple(other for other in range(3) if other != axis)
    wrong, shown = np.zeros((2, reference_zyx.shape[axis]), np.int64)
    for z in range(len(reference_zyx)):  # masks of whole volumes would take as much as the image
        reference, prediction = (_mask(label_zyx[z : z + 1], values) for label_zyx in (reference_zyx, prediction_zyx))
        here = slice(z, z + 1) if axis == 0 else slice(None)
        wrong[here] += (reference != prediction).sum(axis=others)
        shown[here] += reference.sum(axis=others)
    return int(np.argmax(wrong if wrong.any() else shown))


def _picture(channels: Sequence[NDArray[np.float32]], brightest: float | None) -> NDArray[np.float32]:
    """A slice or a part of it, shrunk: (rows, columns) of the only channel, or (rows, columns, 3) in colours, 0..1.

    Args:
        brightest: the value of full colour; None: shades of grey.
    """
    step = _step(channels[0])
    shrunk = [channel[::step, ::step] for channel in channels]
    return shrunk[0] if brightest is None else np.clip(np.stack(shrunk, axis=-1) / brightest, 0, 1)


def _shrunk_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with as many pixels as its picture; one of them is enough to be seen, or small structures would go."""
    step = _step(mask)
    for axis, length in enumerate(mask.shape):
        mask = np.logical_or.reduceat(mask, np.arange(0, length, step), axis=axis)
    return mask


def _step(view: NDArray[Any]) -> int:
    """Every so many rows and columns are shown."""
    return -(-max(view.shape) // _MOST_PIXELS)


def _zoom(mask: NDArray[np.bool_], aspect: float) -> list[tuple[slice, slice]]:
    """The part of a slice around a small structure, about as tall as wide; nothing where it is large enough."""
    if not mask.any():
        return []
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = max((np.ptp(rows) + 1) * aspect, np.ptp(columns) + 1)  # in widths of a voxel
    edge = max(extent * (1 + 2 * _ZOOM_MARGIN), _ZOOM_LEAST)
    height, width = round(edge / aspect), round(edge)
    if height > _ZOOM_BELOW * mask.shape[0] or width > _ZOOM_BELOW * mask.shape[1]:
        return []
    return [(_window(rows, height, mask.shape[0]), _window(columns, width, mask.shape[1]))]


def _window(indices: NDArray[np.intp], length: int, size: int) -> slice:
    start = int(np.clip((indices[0] + indices[-1] + 1 - length) // 2, 0, size - length))
    return slice(start, start + length)
