"""Target spacing, axis order and median shapes (method 3.1 to 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segwright.core.errors import PlansError, brief

LARGEST_SHAPE, LARGEST_EDGE = 1e6, 1e9
"""Voxels of an axis and millimetres of a voxel beyond are damage, and the search for a patch would not end."""
ANISOTROPY = 3.0
"""An axis is anisotropic when it is more than this factor coarser, and shorter, than the two others."""


@dataclass(frozen=True)
class TargetSpacing:
    """The full-resolution spacing, axes as in the images, and how it came about.

    Attributes:
        spacing_mm: the result.
        median_mm, median_shape: medians over the cases.
        anisotropic_axis: the axis that takes the 10th percentile instead of the median, or None.
        overridden: it was given by the user.
    """

    spacing_mm: tuple[float, ...]
    median_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    anisotropic_axis: int | None = None
    overridden: bool = False


def check_fingerprint(fingerprint: Mapping[str, Any]) -> None:
    """Refuse a fingerprint the planner cannot use.

    Raises:
        PlansError: a key is missing, there is no case, or shapes and spacings do not fit or are not positive.
    """
    for key in (
        "spacings",
        "shapes_after_crop",
        "foreground_intensity_properties_per_channel",
        "median_relative_size_after_cropping",
    ):
        if key not in fingerprint:
            raise PlansError(f"dataset_fingerprint.json: the key {key} is missing; inspect the dataset again")
    spacings, shapes = fingerprint["spacings"], fingerprint["shapes_after_crop"]
    if not isinstance(spacings, list) or not isinstance(shapes, list):
        raise PlansError("dataset_fingerprint.json: spacings and shapes_after_crop must be lists; inspect again")
    if not spacings or len(spacings) != len(shapes):
        raise PlansError(
            f"dataset_fingerprint.json: {len(spacings)} spacings and {len(shapes)} shapes; "
            "there must be one of each for every case"
        )
    for entry in (*spacings, *shapes):
        if not isinstance(entry, (list, tuple)) or len(entry) != 3 or not all(map(_is_length, entry)):
            raise PlansError(f"dataset_fingerprint.json: {brief(entry)} is not three positive numbers")
    if not _is_length(fingerprint["median_relative_size_after_cropping"]):
        raise PlansError("dataset_fingerprint.json: median_relative_size_after_cropping is no number; inspect again")
    for old, shape in zip(spacings, shapes, strict=True):
        if max(shape) > LARGEST_SHAPE or max(old) > LARGEST_EDGE or min(old) < 1 / LARGEST_EDGE:
            raise PlansError(f"dataset_fingerprint.json: no image has {brief(shape)} voxels of {brief(old)} mm")


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def full_resolution_spacing(fingerprint: Mapping[str, Any], override: Sequence[float] | None = None) -> TargetSpacing:
    """The target spacing of the full-resolution configurations (method 3.1).

    The median of the spacings; but where one axis is more than 3 times coarser than both others and the images have
    more than 3 times fewer voxels along it, that axis takes the 10th percentile, though never finer than the others.
    """
    spacings = np.array(fingerprint["spacings"], dtype=float)
    target = np.percentile(spacings, 50, axis=0)
    size = np.percentile(np.array(fingerprint["shapes_after_crop"], dtype=float), 50, axis=0)
    median_mm, median_shape = tuple(target.tolist()), tuple(size.tolist())
    if override is not None:
        if len(override) != 3 or not all(value > 0 for value in override):
            raise PlansError(
                f"planning.spacing_mm is {list(override)} but must be three positive numbers, axes as in the images"
            )
        return TargetSpacing(tuple(float(value) for value in override), median_mm, median_shape, overridden=True)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    anisotropic_spacing = target[coarsest] > ANISOTROPY * max(target[others])
    anisotropic_voxels = size[coarsest] * ANISOTROPY < min(size[others])
    if not (anisotropic_spacing and anisotropic_voxels):
        return TargetSpacing(median_mm, median_mm, median_shape)
    finer = np.percentile(spacings[:, coarsest], 10)
    if finer < max(target[others]):
        finer = max(target[others]) + 1e-5
    target[coarsest] = finer
    return TargetSpacing(tuple(target.tolist()), median_mm, median_shape, coarsest)


def transposition(spacing_mm: Sequence[float], transpose: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axis order forward and backward: the coarsest axis (the first, if equal) comes first (method 3.2)."""
    coarsest = int(np.argmax(spacing_mm)) if transpose else 0
    forward = (coarsest, *(axis for axis in range(3) if axis != coarsest))
    return forward, tuple(forward.index(axis) for axis in range(3))


def median_shape_at(
    fingerprint: Mapping[str, Any], spacing_mm: Sequence[float], transpose_forward: Sequence[int]
) -> tuple[float, ...]:
    """Median over cases of the shape at ``spacing_mm`` (axes as in the images), in transposed order (method 3.3).

    Each case's shape is rounded to whole voxels (halves to even); the median may end in .5, and is at least 1.
    """
    shapes = [
        [round(old / new * count) for old, new, count in zip(old_mm, spacing_mm, shape, strict=True)]
        for old_mm, shape in zip(fingerprint["spacings"], fingerprint["shapes_after_crop"], strict=True)
    ]
    median = np.median(np.array(shapes), axis=0)
    return tuple(max(1.0, float(median[axis])) for axis in transpose_forward)
