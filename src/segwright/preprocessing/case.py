"""One case from raw image to network-ready arrays (method 4.1), and the way back onto the raw grid (method 10.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.cropping import Box, box_slices, crop_to_nonzero
from segwright.core.errors import DatasetError, PlansError
from segwright.core.geometry import Geometry
from segwright.core.labels import LabelKey
from segwright.core.slices import PreprocessPlan
from segwright.images.image import Image, LabelMap
from segwright.images.limits import MAX_VALUES
from segwright.preprocessing.locations import sample_locations
from segwright.preprocessing.normalization import normalize_channel
from segwright.preprocessing.resampling import new_shape_after, resample_channel, resample_label, separate_z_axis

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class CaseProperties:
    """Where a stored case came from. All but ``geometry`` in transposed axis order.

    Attributes:
        geometry: grid of the raw image.
        shape_before_cropping, shape_after_cropping: voxels, before resampling.
        bbox: half-open range per axis, of the cropped part in the transposed image.
        shape: of the stored arrays.
        spacing_before_mm: of the raw image.
        spacing_mm: of the stored grid; in a 2-D configuration the slice axis keeps its own.
    """

    geometry: Geometry
    shape_before_cropping: Shape
    bbox: Box
    shape_after_cropping: Shape
    shape: Shape
    spacing_before_mm: Spacing
    spacing_mm: Spacing

    def to_json(self) -> dict[str, Any]:
        return {
            "geometry": self.geometry.to_json(),
            "shape_before_cropping": list(self.shape_before_cropping),
            "bbox": [list(bounds) for bounds in self.bbox],
            "shape_after_cropping": list(self.shape_after_cropping),
            "shape": list(self.shape),
            "spacing_before_mm": list(self.spacing_before_mm),
            "spacing_mm": list(self.spacing_mm),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> CaseProperties:
        """Raises KeyError, TypeError or ValueError where the record is not valid."""
        z, y, x = ((int(low), int(high)) for low, high in record["bbox"])
        return CaseProperties(
            geometry=Geometry.from_json(record["geometry"]),
            shape_before_cropping=_shape(record["shape_before_cropping"]),
            bbox=(z, y, x),
            shape_after_cropping=_shape(record["shape_after_cropping"]),
            shape=_shape(record["shape"]),
            spacing_before_mm=_spacing(record["spacing_before_mm"]),
            spacing_mm=_spacing(record["spacing_mm"]),
        )


@dataclass(frozen=True)
class PreprocessedCase:
    """A case as networks see it.

    Attributes:
        image_czyx: float32, normalised, on the target spacing.
        label_zyx: int8 (int16 above 127), -1 outside the non-zero mask; None without a label map.
        class_locations: per key int32 (k, 3) voxels to centre foreground patches on; None without a label map.
        present_channels: False for a channel that is constant zero, which stands for a missing sequence.
        annotated_labels: label values that were annotated in this case; all of the dataset's in ordinary datasets.
    """

    image_czyx: NDArray[np.float32]
    label_zyx: NDArray[Any] | None
    properties: CaseProperties
    class_locations: Mapping[LabelKey, NDArray[np.int32]] | None
    present_channels: tuple[bool, ...]
    annotated_labels: tuple[int, ...]


def preprocess_case(
    image: Image, label: LabelMap | None, plan: PreprocessPlan, *, with_locations: bool = True
) -> PreprocessedCase:
    """Transpose, crop, normalise, resample, and sample class locations; in v1's order if the plan says so.

    The inputs are not changed. Channels pass one after the other, so that beside the raw and the finished image only
    one channel's intermediate arrays exist.

    Args:
        label: the reference label map, or a previous stage's prediction (method 10.5), or None.
        with_locations: False saves the time where nobody will sample patches.

    Raises:
        DatasetError: channels or shapes do not fit. PlansError: the plan names an unknown normalisation.
    """
    _check(image, label, plan)
    forward = plan.transpose_forward
    transposed_czyx = image.array_czyx.transpose(0, *(axis + 1 for axis in forward))
    cropped_czyx, mask_zyx, box = crop_to_nonzero(transposed_czyx, None if label is None else _signed(label, forward))
    properties = plan_geometry(image.geometry, box, plan)
    resample_first = plan.order_of_steps == "resample_first"
    uses_mask = any(plan.use_mask_for_norm)
    label_zyx = mask_zyx
    if label is not None or (resample_first and uses_mask):
        label_zyx = _resample_label(mask_zyx, properties, plan)
    inside_zyx = ((label_zyx if resample_first else mask_zyx) >= 0) if uses_mask else None
    del mask_zyx
    finished_czyx = np.empty((len(cropped_czyx), *properties.shape), np.float32)
    for channel, out_zyx in enumerate(finished_czyx):
        _finish_channel(cropped_czyx[channel], out_zyx, channel, inside_zyx, properties, plan)
    present = tuple(bool(channel_zyx.any()) for channel_zyx in cropped_czyx)
    if label is None:
        return PreprocessedCase(finished_czyx, None, properties, None, present, ())
    label_zyx = label_zyx.astype(np.int16 if label_zyx.max(initial=0) > 127 else np.int8, copy=False)
    locations = sample_locations(label_zyx, plan.labels) if with_locations else None
    return PreprocessedCase(finished_czyx, label_zyx, properties, locations, present, plan.labels.all_labels)


def plan_geometry(geometry: Geometry, box: Box, plan: PreprocessPlan) -> CaseProperties:
    """Shapes and spacings a case will have; ``box`` is the crop in transposed axes.

    Raises:
        DatasetError: the resampled case would be larger than any image: its header claims an impossible spacing.
    """
    shape = _permuted(geometry.shape_zyx, plan.transpose_forward)
    spacing_mm = _permuted(geometry.spacing_zyx, plan.transpose_forward)
    target_mm = plan.target_spacing_mm(spacing_mm)
    cropped = tuple(high - low for low, high in box)
    resampled = _shape([max(1, edge) for edge in new_shape_after(cropped, spacing_mm, target_mm)])
    if prod(resampled) > MAX_VALUES:
        before, after = (" x ".join(f"{edge:g}" for edge in edges) for edges in (spacing_mm, target_mm))
        raise DatasetError(
            f"resampled from {before} mm to {after} mm it would have {' x '.join(map(str, resampled))} voxels; correct"
            " the voxel spacing in the file's header"
        )
    return CaseProperties(
        geometry=geometry,
        shape_before_cropping=_shape(shape),
        bbox=box,
        shape_after_cropping=_shape(cropped),
        shape=resampled,
        spacing_before_mm=_spacing(spacing_mm),
        spacing_mm=_spacing(target_mm),
    )


def undo_crop_and_transpose(
    array: NDArray[Any], properties: CaseProperties, plan: PreprocessPlan, fill: float | Sequence[float]
) -> NDArray[Any]:
    """Put an array of the cropped, transposed grid back onto the raw grid; same dtype.

    Args:
        array: (z, y, x) or (c, z, y, x), spatial shape ``properties.shape_after_cropping``.
        fill: value outside the crop; with channels also one value a channel.
    """
    leading = array.shape[:-3]
    if array.shape[-3:] != properties.shape_after_cropping:
        raise ValueError(f"an array of {array.shape[-3:]} does not fit the crop {properties.shape_after_cropping}")
    full = np.empty((*leading, *properties.shape_before_cropping), array.dtype)
    full[...] = np.asarray(fill, array.dtype).reshape(-1, 1, 1, 1) if leading else fill
    full[(..., *box_slices(properties.bbox))] = array
    offset = len(leading)
    order = (*range(offset), *(axis + offset for axis in plan.transpose_backward))
    return np.ascontiguousarray(full.transpose(order))


def _resample_label(label_zyx: NDArray[Any], properties: CaseProperties, plan: PreprocessPlan) -> NDArray[Any]:
    before, after = properties.spacing_before_mm, properties.spacing_mm
    return resample_label(label_zyx, properties.shape, before, after, plan.resampling_label, plan.label_resize)


def _finish_channel(
    channel_zyx: NDArray[np.float32],
    out_zyx: NDArray[np.float32],
    channel: int,
    inside_zyx: NDArray[np.bool_] | None,
    properties: CaseProperties,
    plan: PreprocessPlan,
) -> None:
    """Normalise and resample one cropped channel into ``out_zyx``, in the plan's order."""
    scheme, statistics = plan.normalization_schemes[channel], plan.intensities[channel]
    mask_zyx = inside_zyx if plan.use_mask_for_norm[channel] else None
    before, after = properties.spacing_before_mm, properties.spacing_mm
    separate = separate_z_axis(before, after, plan.resampling_image.force_separate_z)
    changes = properties.shape != properties.shape_after_cropping
    if plan.order_of_steps == "resample_first":
        if changes:
            resample_channel(channel_zyx, out_zyx, separate, plan.resampling_image)
        else:
            out_zyx[...] = channel_zyx
        normalize_channel(out_zyx, scheme, mask_zyx, statistics)
        if mask_zyx is not None:
            out_zyx[~mask_zyx] = 0  # v1; interpolation has smeared values over the border of the mask
        return
    working_zyx = channel_zyx.copy("C") if changes else out_zyx
    if not changes:
        out_zyx[...] = channel_zyx
    normalize_channel(working_zyx, scheme, mask_zyx, statistics)
    if changes:
        resample_channel(working_zyx, out_zyx, separate, plan.resampling_image)


def _check(image: Image, label: LabelMap | None, plan: PreprocessPlan) -> None:
    channels = len(image.array_czyx)
    wanted = len(plan.normalization_schemes)
    if channels != wanted:
        raise DatasetError(
            f"the image has {channels} channels but the plans were made for {wanted}; give it the channels, and"
            " no others, that the dataset the plans were made for has"
        )
    if not len(plan.use_mask_for_norm) == len(plan.intensities) == wanted:
        raise PlansError("plans: normalization_schemes, use_mask_for_norm and intensities differ in length")
    if label is not None and label.array_zyx.shape != image.array_czyx.shape[1:]:
        raise DatasetError(
            f"the label map has shape {label.array_zyx.shape} but the image {image.array_czyx.shape[1:]} (z, y, x);"
            " they must lie on one grid"
        )


def _signed(label: LabelMap, forward: Sequence[int]) -> NDArray[Any]:
    """The transposed label map in a small type that holds -1."""
    array_zyx = label.array_zyx.transpose(tuple(forward))
    largest = int(array_zyx.max(initial=0))
    return array_zyx.astype(np.int8 if largest <= 127 else np.int16 if largest <= 32767 else np.int32, copy=False)


def _permuted(values: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[axis] for axis in order)


def _shape(values: Sequence[Any]) -> Shape:
    z, y, x = (int(value) for value in values)
    return z, y, x


def _spacing(values: Sequence[Any]) -> Spacing:
    z, y, x = (float(value) for value in values)
    return z, y, x
