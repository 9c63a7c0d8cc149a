"""Checks of voxel values: infinite, constant, undeclared or missing ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.images.image import Image
from segwright.inspection.records import AddProblem, Severity

_BLOCK_VOXELS = 1 << 18  # small enough for the cache: counting converts each block to 8-byte integers


def pixel_digest(images_czyx: Sequence[NDArray[np.float32]]) -> str:
    """SHA-256 of shapes and voxels: equal for the same image stored twice, whatever the compression or header."""
    digest = hashlib.sha256()
    for image_czyx in images_czyx:
        digest.update(repr(image_czyx.shape).encode("ascii"))
        digest.update(np.ascontiguousarray(image_czyx).data)
    return digest.hexdigest()


def count_labels(label_zyx: NDArray[Any]) -> dict[int, int]:
    """Voxels of each value of an integer array, ascending."""
    flat = label_zyx.ravel()
    if label_zyx.dtype != np.uint8 and (flat.min() < 0 or flat.max() > 65535):
        values, counts = np.unique(flat, return_counts=True)
        return {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    total = np.zeros(256 if label_zyx.dtype == np.uint8 else int(flat.max()) + 1, np.int64)
    for start in range(0, flat.size, _BLOCK_VOXELS):
        total += np.bincount(flat[start : start + _BLOCK_VOXELS], minlength=total.size)
    return {int(value): int(total[value]) for value in np.flatnonzero(total)}


def find_infinite_voxels(image_czyx: NDArray[np.float32], file: Path, add: AddProblem) -> None:
    """NaN or infinity in an image file is an error (method 1.5 point 7)."""
    if np.isfinite(image_czyx.min()) and np.isfinite(image_czyx.max()):  # both carry a NaN through
        return
    wrong_czyx = ~np.isfinite(image_czyx)
    nan = int(np.count_nonzero(np.isnan(image_czyx)))
    infinite = int(np.count_nonzero(wrong_czyx)) - nan
    counted = " and ".join(text for count, text in ((nan, f"{nan} NaN"), (infinite, f"{infinite} infinite")) if count)
    first = ", ".join(str(int(position)) for position in np.unravel_index(wrong_czyx.argmax(), wrong_czyx.shape)[1:])
    message = f"the image has {counted} voxels (the first at z, y, x = {first})"
    add("error", "not_finite", file, message, "replace them, for example by the background value, and save it again")


def find_constant_channels(images: Sequence[tuple[Path, Image]], add: AddProblem, *, may_be_constant: bool) -> None:
    """An image without any contrast is an error, or a warning if it ``may_be_constant``.

    That is a test image, or one whose label map is empty, as a blank slice among 2-D images.

    One constant channel among others only warns: a sequence may be blank in one patient.
    """
    channels = [(file, channel) for file, image in images for channel in image.array_czyx]
    constant = [
        (index, file, float(channel_zyx.flat[0]))
        for index, (file, channel_zyx) in enumerate(channels)
        if channel_zyx.flat[0] == channel_zyx.flat[-1] and channel_zyx.min() == channel_zyx.max()
    ]
    whole_image = len(constant) == len(channels)
    severity: Severity = "error" if whole_image and not may_be_constant else "warning"
    for index, file, value in constant:
        what = "the image" if whole_image else f"channel {index:04d}"
        message = f"{what} is constant: every voxel is {value:g}"
        add(severity, "constant", file, message, "export it again, or remove the case")


def find_label_problems(
    voxels: Mapping[int, int], declared: Sequence[int], foreground: Sequence[int], file: Path, add: AddProblem
) -> None:
    """Undeclared values are an error (method 1.5 point 6); a label map without foreground is a warning."""
    unknown = [value for value in voxels if value not in set(declared)]
    if unknown:
        shown = ", ".join(f"{value} ({voxels[value]} voxels)" for value in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        message = f"the label map holds values that dataset.json does not declare: {shown}{more}"
        known = ", ".join(str(value) for value in declared)
        add("error", "label_undeclared", file, f"{message}; declared are {known}", "correct the label map, or `labels`")
    elif not any(value in voxels for value in foreground):
        found = ", ".join(str(value) for value in voxels)
        message = f"the label map has no foreground (only {found})"
        add("warning", "label_empty", file, message, "keep it if nothing is to be seen there, else correct it")
