"""What a file becomes in memory: an image with channels, or a label map, each with its grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry

_WHOLE_IN_SINGLE = 1 << 24  # all whole numbers up to here are float32 numbers, too


@dataclass(frozen=True)
class Stored:
    """A file's content, before it is known whether it is an image or a label map.

    Attributes:
        array_czyx: values as stored, any real number type, shape (channels, z, y, x).
        geometry: the grid; its shape is the array's without the channels.
        stored_dtype: numpy name of the type the file's values have (after a NIfTI file's own scaling).
    """

    array_czyx: npt.NDArray[Any]
    geometry: Geometry
    stored_dtype: str


@dataclass(frozen=True)
class Image:
    """One image, or several channel files of one case stacked.

    Attributes:
        array_czyx: float32, shape (channels, z, y, x); a 2-D image has z = 1.
        geometry: the grid all channels share (the first file's).
        stored_dtype: numpy name of the type the files hold; ``mixed`` if they differ.
    """

    array_czyx: npt.NDArray[np.float32]
    geometry: Geometry
    stored_dtype: str


@dataclass(frozen=True)
class LabelMap:
    """One label map.

    Attributes:
        array_zyx: uint8, int16 or int32, the smallest that holds the values.
        geometry: its grid.
        stored_dtype: numpy name of the type the file holds, possibly a float type holding whole numbers.
    """

    array_zyx: npt.NDArray[Any]
    geometry: Geometry
    stored_dtype: str


def as_label_map(stored: Stored, path: Path) -> LabelMap:
    """Make a label map of a file's values.

    Several channels are accepted only in a picture in which they are all equal (grey saved as RGB).

    Raises:
        DatasetError: several different channels, values that are not whole numbers, or beyond 32 bits.
    """
    array_czyx = stored.array_czyx
    array_zyx = array_czyx[0]
    grey = stored.geometry.dimension == 2 and all(np.array_equal(array_zyx, other) for other in array_czyx[1:])
    if len(array_czyx) > 1 and not grey:
        raise DatasetError(
            f"{path}: a label map must have one value a voxel but this file has {len(array_czyx)} channels"
            " (4-D or colour); save it as a single-channel file of label values"
        )
    return LabelMap(smallest_integers(array_zyx, path), stored.geometry, stored.stored_dtype)


def smallest_integers(values: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """The same whole numbers as uint8, int16 or int32, whichever is the smallest that holds them.

    Doubles are looked at in single precision, as v2 does: a scaling in the header makes 2.9999999999999996 of a 3.

    Raises:
        DatasetError: NaN, infinities, fractions, or values beyond 32 bits.
    """
    if values.dtype == np.float64 and values.size and max(-values.min(), values.max()) < _WHOLE_IN_SINGLE:
        values = values.astype(np.float32)
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values) | (values != np.rint(values))
        if wrong.any():
            example = values[wrong].flat[0]
            raise DatasetError(
                f"{path}: label values must be whole numbers but {np.count_nonzero(wrong)} voxels are not"
                f" (for example {example!s}); save the label map with an integer type"
            )
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    for kind in (np.uint8, np.int16, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.ascontiguousarray(values, dtype=kind)
    raise DatasetError(f"{path}: label values from {low} to {high} are beyond 32 bits; save it with label numbers")
