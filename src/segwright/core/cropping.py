"""Cropping to the non-zero part of an image (method 2.1). Pure functions; scipy is loaded only where a hole may be.

Boxes are half-open index ranges ``((z_lo, z_hi), (y_lo, y_hi), (x_lo, x_hi))``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

_FEW_VOXELS = 1000
OUTSIDE = -1
"""Label value of the voxels outside the non-zero mask (nnU-Net v2)."""


def nonzero_box(image_czyx: NDArray[Any]) -> Box:
    """Smallest box around all voxels that are not zero in every channel; the full extent if all are zero.

    Filling holes never enlarges the box, so no mask is needed. NaN counts as not zero.
    """
    box: list[tuple[int, int]] = []
    view_czyx = image_czyx
    for axis in range(1, 4):
        low, high = _nonzero_range(view_czyx, axis)
        if low == high:
            return _full_extent(image_czyx)
        box.append((low, high))
        view_czyx = view_czyx[(slice(None),) * axis + (slice(low, high),)]
    return box[0], box[1], box[2]


def nonzero_bounding_box(image_czyx: NDArray[Any]) -> tuple[Box, NDArray[np.bool_]]:
    """The non-zero box and, cropped to it, the hole-filled mask of what is not zero in every channel.

    Returns:
        box: see :func:`nonzero_box`.
        mask_zyx: bool, shape of the box. True inside; all False if the whole image is zero.
    """
    box = nonzero_box(image_czyx)
    cropped_czyx = image_czyx[(slice(None), *box_slices(box))]
    mask_zyx = cropped_czyx[0] != 0
    for channel_zyx in cropped_czyx[1:]:
        np.logical_or(mask_zyx, channel_zyx != 0, out=mask_zyx)
    return box, fill_holes(mask_zyx)


def crop_to_nonzero(image_czyx: NDArray[Any], label_zyx: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[Any], Box]:
    """Crop image and label map to the non-zero box; label 0 outside the mask becomes -1 (method 2.1).

    Args:
        image_czyx: any numeric type.
        label_zyx: integers on the same grid; None makes a label map of 0 inside and -1 outside the mask (int8).

    Returns:
        image_czyx: a view of the input, cropped.
        label_zyx: a new array; signed (uint8 becomes int16), so that it can hold -1. Foreground outside the mask stays.
        box: where the crop lies in the input.
    """
    box, mask_zyx = nonzero_bounding_box(image_czyx)
    slices = box_slices(box)
    if label_zyx is None:
        cropped_zyx = mask_zyx.astype(np.int8)
        cropped_zyx -= 1
    else:
        cropped_zyx = label_zyx[slices].astype(np.promote_types(label_zyx.dtype, np.int8))
        if not mask_zyx.all():
            cropped_zyx[(cropped_zyx == 0) & ~mask_zyx] = OUTSIDE
    return image_czyx[(slice(None), *slices)], cropped_zyx, box


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """Index expression of a box."""
    return slice(*box[0]), slice(*box[1]), slice(*box[2])


def fill_holes(mask_zyx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Set background that faces cannot connect to the border of the array; equals scipy's ``binary_fill_holes``.

    The background's components are labelled in one pass, instead of one dilation per voxel of depth. A handful of
    background voxels, as at the edge of tightly cropped images, are walked through one by one: loading scipy would take
    longer than the cases of a whole dataset.
    """
    missing = mask_zyx.size - int(np.count_nonzero(mask_zyx))
    if missing == 0:
        return mask_zyx
    if missing <= _FEW_VOXELS:
        return _fill_few_holes(mask_zyx)
    from scipy import ndimage

    components_zyx, count = ndimage.label(~mask_zyx)
    open_to_border = np.zeros(count + 1, dtype=bool)
    for axis in range(components_zyx.ndim):
        for end in (0, -1):
            open_to_border[np.take(components_zyx, end, axis).ravel()] = True
    open_to_border[0] = False  # component 0 is the mask itself
    return ~open_to_border[components_zyx]


def _fill_few_holes(mask_zyx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same, voxel by voxel from the border inwards."""
    closed = {tuple(voxel) for voxel in np.argwhere(~mask_zyx).tolist()}
    last = [edge - 1 for edge in mask_zyx.shape]
    reached = [voxel for voxel in closed if any(v in (0, end) for v, end in zip(voxel, last, strict=True))]
    closed.difference_update(reached)
    while reached:
        voxel = reached.pop()
        for axis, index in enumerate(voxel):
            for neighbour in (index - 1, index + 1):
                beside = (*voxel[:axis], neighbour, *voxel[axis + 1 :])
                if beside in closed:
                    closed.remove(beside)
                    reached.append(beside)
    filled_zyx = mask_zyx.copy()
    for voxel in closed:
        filled_zyx[voxel] = True
    return filled_zyx


def _nonzero_range(array_czyx: NDArray[Any], axis: int) -> tuple[int, int]:
    """First and one past the last plane along ``axis`` that is not all zero; (0, 0) if there is none."""
    size = array_czyx.shape[axis]
    if all(np.any(array_czyx[(slice(None),) * axis + (end,)]) for end in (0, -1)):
        return 0, size  # the usual case, decided by two planes
    occupied = np.flatnonzero(array_czyx.any(axis=tuple(other for other in range(4) if other != axis)))
    return (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, 0)


def _full_extent(image_czyx: NDArray[Any]) -> Box:
    z, y, x = image_czyx.shape[1:]
    return (0, z), (0, y), (0, x)
