"""Turning an image to RAS axis order and back, as nnU-Net's readers ``...WithReorient`` do (method 1.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segwright.core.geometry import Geometry
from segwright.images.image import Stored

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def to_ras(stored: Stored) -> Stored:
    """Permute and flip the axes so that x grows to the right, y to the front, z to the head; nothing is interpolated.

    2-D images stay as they are.
    """
    if stored.geometry.dimension == 2:
        return stored
    axes, signs = _axes_for_ras(stored.geometry)
    array_cxyz = stored.array_czyx.transpose(0, 3, 2, 1).transpose(0, *(axis + 1 for axis in axes))
    array_cxyz = array_cxyz[:, :: signs[0], :: signs[1], :: signs[2]]
    array_czyx: npt.NDArray[Any] = np.ascontiguousarray(array_cxyz.transpose(0, 3, 2, 1))
    return Stored(array_czyx, geometry_to_ras(stored.geometry), stored.stored_dtype)


def geometry_to_ras(geometry: Geometry) -> Geometry:
    """The grid after :func:`to_ras`."""
    if geometry.dimension == 2:
        return geometry
    axes, signs = _axes_for_ras(geometry)
    direction = np.reshape(geometry.direction_xyz, (3, 3))
    shape_xyz, spacing_xyz = geometry.shape_zyx[::-1], geometry.spacing_zyx[::-1]
    origin = np.asarray(geometry.origin_xyz, dtype=np.float64)
    for axis, sign in zip(axes, signs, strict=True):
        if sign < 0:  # the first voxel is now the last one of this axis
            origin = origin + direction[:, axis] * spacing_xyz[axis] * (shape_xyz[axis] - 1)
    columns = np.stack([direction[:, axis] * sign for axis, sign in zip(axes, signs, strict=True)], axis=1)
    x, y, z = axes
    return replace(
        geometry,
        shape_zyx=(shape_xyz[z], shape_xyz[y], shape_xyz[x]),
        spacing_zyx=(spacing_xyz[z], spacing_xyz[y], spacing_xyz[x]),
        origin_xyz=tuple(float(value) for value in origin),
        direction_xyz=tuple(float(value) for value in columns.ravel()),
        turned=(signs[0] * (x + 1), signs[1] * (y + 1), signs[2] * (z + 1)),
    )


def to_stored(array_zyx: npt.NDArray[Any], geometry: Geometry) -> tuple[npt.NDArray[Any], Geometry]:
    """Undo :func:`to_ras` for one channel: array and grid with the axes of the file the grid was read from.

    A grid that was not turned stays as it is.
    """
    if geometry.turned is None:
        return array_zyx, geometry
    steps = [1 if code > 0 else -1 for code in geometry.turned]
    place = np.argsort(np.abs(geometry.turned))  # for each stored axis the axis of this grid
    array_xyz = array_zyx.transpose(2, 1, 0)[:: steps[0], :: steps[1], :: steps[2]]
    shape_xyz, spacing_xyz = geometry.shape_zyx[::-1], geometry.spacing_zyx[::-1]
    direction = np.reshape(geometry.direction_xyz, (3, 3))
    origin = np.asarray(geometry.origin_xyz, dtype=np.float64)
    for axis, step in enumerate(steps):
        if step < 0:
            origin = origin + direction[:, axis] * spacing_xyz[axis] * (shape_xyz[axis] - 1)
    x, y, z = (int(axis) for axis in place)
    stored = Geometry(
        shape_zyx=(shape_xyz[z], shape_xyz[y], shape_xyz[x]),
        spacing_zyx=(spacing_xyz[z], spacing_xyz[y], spacing_xyz[x]),
        origin_xyz=tuple(float(value) for value in origin),
        direction_xyz=tuple(float(value) for value in (direction * steps)[:, place].ravel()),
    )
    return np.ascontiguousarray(array_xyz.transpose(x, y, z).transpose(2, 1, 0)), stored


def _axes_for_ras(geometry: Geometry) -> tuple[list[int], list[int]]:
    """For each of R, A, S the stored axis (x = 0) that runs most along it, and its sign."""
    along = _LPS_TO_RAS @ np.reshape(geometry.direction_xyz, (3, 3))  # rows R, A, S; columns stored x, y, z
    remaining = np.abs(along)
    axes, signs = [0, 0, 0], [1, 1, 1]
    for _ in range(3):  # strongest pair first, so that an oblique image gets three different axes
        world, axis = np.unravel_index(int(remaining.argmax()), remaining.shape)
        axes[int(world)], signs[int(world)] = int(axis), 1 if along[world, axis] > 0 else -1
        remaining[world, :] = -1
        remaining[:, axis] = -1
    return axes, signs
