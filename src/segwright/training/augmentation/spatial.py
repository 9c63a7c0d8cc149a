"""Turning and zooming: rotation and scaling in one interpolation (method 6.2 #0 and #1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segwright.training.augmentation.interpolation import OUTSIDE_LABEL, sample
from segwright.training.augmentation.ranges import rotation_matrix


class Window(Protocol):
    """A region of a case that is read only where it is asked for. Coordinates count from its first voxel."""

    @property
    def channels(self) -> int:
        """Of the image."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Edge lengths of the loader patch, two or three."""

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Image (channels, *edges) float32 and labels (maps, *edges) of ``lower <= index < upper``.

        Beyond the window or the case: image 0, labels -1.
        """


@dataclass(frozen=True)
class ArrayWindow:
    """A window over arrays in memory: image (channels, *spatial) and labels (maps, *spatial)."""

    image: np.ndarray
    labels: np.ndarray

    @property
    def channels(self) -> int:
        return len(self.image)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape[1:]

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        image = read_padded(self.image, lower, upper, 0, np.float32)
        return image, read_padded(self.labels, lower, upper, OUTSIDE_LABEL, self.labels.dtype)


@dataclass(frozen=True)
class WindowPart:
    """Which part of a window a patch needs, and where in it the patch's voxels lie: all the geometry of a sample.

    Attributes:
        lower, upper: the part holds the voxels ``lower <= index < upper`` of the window.
        patch_size: edge lengths of the patch.
        matrix: (d, d) float64 from output to input index steps, over the last d axes; None: the part is the patch.
        offset: (d,) index in the part of the patch's first voxel, over the same axes.
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    patch_size: tuple[int, ...]
    matrix: np.ndarray | None = None
    offset: tuple[float, ...] = ()

    @property
    def edges(self) -> tuple[int, ...]:
        """Edge lengths of the part."""
        return tuple(high - low for low, high in zip(self.lower, self.upper, strict=True))

    def __call__(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image (channels, *edges) and labels (maps, *edges) to their patches.

        An axis that is not turned is one of channels: all slices of all channels are interpolated alike.
        """
        if self.matrix is None:
            return image, labels
        turned, turned_patch = self.edges[-len(self.offset) :], self.patch_size[-len(self.offset) :]
        image, labels = image.reshape(-1, *turned), labels.reshape(-1, *turned)
        image, labels = sample(image, labels, self.matrix, self.offset, turned_patch)
        return image.reshape(-1, *self.patch_size), labels.reshape(-1, *self.patch_size)


@dataclass(frozen=True)
class Spatial:
    """Turn and zoom a patch about the centre of its window.

    The sampling point of an output voxel at distance x from the patch centre lies at ``R @ (scale * x)`` from the
    window's centre: a scale above 1 samples a larger area and so zooms out.

    Attributes:
        patch_size: edge lengths of the result, two or three.
        angles_rad: one angle (2-D, or 3-D in the plane of the last two axes), or three about axes 0, 1, 2; empty: none.
        scale: one factor for all turned axes; with ``angles_rad`` empty and scale 1 the window's centre is copied.
        in_plane: leave axis 0 of a 3-D patch alone ("dummy 2-D"); the window then has the patch's edge there.
    """

    patch_size: tuple[int, ...]
    angles_rad: tuple[float, ...] = ()
    scale: float = 1.0
    in_plane: bool = False

    @property
    def is_copy(self) -> bool:
        """Whether no voxel is interpolated."""
        return not self.angles_rad and self.scale == 1.0

    @property
    def matrix(self) -> np.ndarray:
        """(d, d) float64: from output to input coordinates, over the turned axes only."""
        turned = len(self.patch_size) - int(self.in_plane)
        rotation = rotation_matrix(self.angles_rad) if self.angles_rad else np.eye(turned)
        return rotation * self.scale

    def __call__(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image (channels, *loader patch) and labels (maps, *loader patch) to their patches."""
        return self.sample(ArrayWindow(image, labels))

    def sample(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """As calling with the window's whole content, but only the voxels that are needed are read."""
        part = self.part(window.shape)
        return part(*window.read(part.lower, part.upper))

    def part(self, window_shape: Sequence[int]) -> WindowPart:
        """What is needed of a window of this shape."""
        if self.is_copy:
            lower = tuple(whole // 2 - edge // 2 for whole, edge in zip(window_shape, self.patch_size, strict=True))
            upper = tuple(low + edge for low, edge in zip(lower, self.patch_size, strict=True))
            return WindowPart(lower, upper, self.patch_size)
        kept = int(self.in_plane)
        matrix = self.matrix
        half_patch = (np.asarray(self.patch_size[kept:]) - 1) / 2
        centre = (np.asarray(window_shape[kept:]) - 1) / 2
        reach = np.abs(matrix) @ half_patch
        # Every cell a sampling point lies in, but nothing beyond the window: the interpolation knows what is there.
        lower = tuple(max(0, math.floor(c - r)) for c, r in zip(centre, reach, strict=True))
        upper = tuple(min(n, math.floor(c + r) + 2) for c, r, n in zip(centre, reach, window_shape[kept:], strict=True))
        offset = centre - matrix @ half_patch - lower
        slices = self.patch_size[:kept]
        return WindowPart((0,) * kept + lower, slices + upper, self.patch_size, matrix, tuple(map(float, offset)))


@dataclass(frozen=True)
class RandomSpatial:
    """Draws :class:`Spatial`; rotation and scaling fire independently (method 6.2 #1).

    Attributes:
        rotation_rad: each angle from U(-rotation_rad, rotation_rad).
        scale: one factor for all axes from this uniform range.
    """

    patch_size: tuple[int, ...]
    rotation_rad: float
    in_plane: bool = False
    rotation_probability: float = 0.2
    scale: tuple[float, float] = (0.7, 1.4)
    scaling_probability: float = 0.2

    def draw(self, rng: np.random.Generator) -> Spatial:
        turned = len(self.patch_size) - int(self.in_plane)
        angles: tuple[float, ...] = ()
        scale = 1.0
        if rng.random() < self.rotation_probability:
            count = 3 if turned == 3 else 1
            angles = tuple(float(a) for a in rng.uniform(-self.rotation_rad, self.rotation_rad, count))
        if rng.random() < self.scaling_probability:
            scale = float(rng.uniform(*self.scale))
        return Spatial(self.patch_size, angles, scale, self.in_plane)


def read_padded(
    array: np.ndarray, lower: Sequence[int], upper: Sequence[int], fill: float, dtype: np.dtype | type
) -> np.ndarray:
    """A copy of ``array[:, lower:upper, ...]`` as ``dtype``, with ``fill`` where that lies beyond the array.

    ``array`` is (channels, *spatial) and may be a memory map: only the pages of the region are read.
    """
    edges = [high - low for low, high in zip(lower, upper, strict=True)]
    begin = [max(0, low) for low in lower]
    end = [max(start, min(high, edge)) for start, high, edge in zip(begin, upper, array.shape[1:], strict=True)]
    inside = all(start == low and stop == high for start, low, stop, high in zip(begin, lower, end, upper, strict=True))
    result = np.empty((len(array), *edges), dtype) if inside else np.full((len(array), *edges), fill, dtype)
    source = (slice(None), *(slice(start, stop) for start, stop in zip(begin, end, strict=True)))
    target = (
        slice(None),
        *(slice(start - low, stop - low) for start, stop, low in zip(begin, end, lower, strict=True)),
    )
    result[target] = array[source]
    return result
