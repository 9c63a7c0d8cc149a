"""How far patches are turned and flipped, and how large a patch the loader must read for that (method 6.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LARGEST_USEFUL_ANGLE_RAD = math.pi / 2
_SMALLEST_SCALE = 0.85  # the old lower bound of the zoom; v2 kept it here although it now zooms down to 0.7


@dataclass(frozen=True)
class SpatialRanges:
    """What follows from the network's patch size alone.

    Attributes:
        rotation_rad: angles are drawn from U(-rotation_rad, rotation_rad).
        in_plane: axis 0 is left alone ("dummy 2-D"), for patches much thinner along it.
        flip_axes: spatial axes (0 = first axis of the patch) that may be mirrored.
        loader_patch_size: edge lengths of the region a turned or zoomed patch is taken from.
    """

    rotation_rad: float
    in_plane: bool
    flip_axes: tuple[int, ...]
    loader_patch_size: tuple[int, ...]


def spatial_ranges(patch_size: Sequence[int]) -> SpatialRanges:
    """Ranges of a 2-D or 3-D patch (method 6.1).

    2-D: 15 degrees if the edges differ by more than 1.5 times, else 180. 3-D: 180 degrees in the plane if the largest
    edge is more than 3 times the first one, else 30 degrees about each axis.
    """
    patch = tuple(int(edge) for edge in patch_size)
    in_plane = False
    if len(patch) == 2:
        rotation_rad = math.radians(15 if max(patch) / min(patch) > 1.5 else 180)
    else:
        in_plane = max(patch) / patch[0] > 3
        rotation_rad = math.radians(180 if in_plane else 30)
    return SpatialRanges(
        rotation_rad, in_plane, tuple(range(len(patch))), loader_patch_size(patch, rotation_rad, in_plane)
    )


def loader_patch_size(patch_size: Sequence[int], rotation_rad: float, in_plane: bool) -> tuple[int, ...]:
    """Edge lengths that hold the patch turned about any one axis by the largest angle, enlarged for zooming.

    Method 6.1: element-wise maximum of p and ``|p R|`` for the rotations about each axis, over 0.85, truncated. With
    ``in_plane`` only the last two axes grow.
    """
    edges = np.asarray(patch_size[1:] if in_plane else patch_size, dtype=np.float64)
    angle = min(abs(rotation_rad), _LARGEST_USEFUL_ANGLE_RAD)
    if len(edges) == 2:
        rotations = [rotation_matrix((angle,))]
    else:
        rotations = [
            rotation_matrix(tuple(angle if axis == turned else 0.0 for axis in range(3))) for turned in range(3)
        ]
    candidates = np.array([edges, *(np.abs(edges @ rotation) for rotation in rotations)])
    grown = tuple(int(edge) for edge in candidates.max(axis=0) / _SMALLEST_SCALE)
    return (int(patch_size[0]), *grown) if in_plane else grown


def rotation_matrix(angles_rad: Sequence[float]) -> np.ndarray:
    """Rotation of array coordinates, float64: one angle gives 2x2, three give ``Rz @ Ry @ Rx`` (method 6.1, 6.2).

    The method's x, y, z are array axes 0, 1, 2: the first angle turns about axis 0.
    """
    cosine, sine = np.cos(np.asarray(angles_rad, np.float64)), np.sin(np.asarray(angles_rad, np.float64))
    if len(angles_rad) == 1:
        return np.array([[cosine[0], -sine[0]], [sine[0], cosine[0]]])
    about_0 = np.array([[1, 0, 0], [0, cosine[0], -sine[0]], [0, sine[0], cosine[0]]])
    about_1 = np.array([[cosine[1], 0, sine[1]], [0, 1, 0], [-sine[1], 0, cosine[1]]])
    about_2 = np.array([[cosine[2], -sine[2], 0], [sine[2], cosine[2], 0], [0, 0, 1]])
    return about_2 @ about_1 @ about_0
