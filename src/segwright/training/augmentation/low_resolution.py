"""Simulated low resolution: down by nearest voxel, up by linear interpolation (method 6.2 #6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segwright.training.augmentation.draws import fires


@dataclass(frozen=True)
class LowResolution:
    """Reduce channels to ``round(edge * scale)`` voxels an axis and enlarge them again.

    Attributes:
        scales: per channel None (left alone) or one scale per spatial axis.
    """

    scales: tuple[tuple[float, ...] | None, ...]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(channels, *spatial) float32 to the same shape and type."""
        result = np.empty_like(image)
        for channel, axis_scales in enumerate(self.scales):
            volume = image[channel]
            if axis_scales is not None:
                volume = enlarge(reduce_nearest(volume, reduced_edges(volume.shape, axis_scales)), volume.shape)
            result[channel] = volume
        return result


@dataclass(frozen=True)
class RandomLowResolution:
    """Draws :class:`LowResolution`: each channel with its own chance and one scale for all its axes.

    ``keep_axis_0`` leaves axis 0 at full resolution (patches that are thin along it, "dummy 2-D").
    """

    probability: float = 0.25
    channel_probability: float = 0.5
    scale: tuple[float, float] = (0.5, 1.0)
    keep_axis_0: bool = False

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> LowResolution | None:
        if not fires(rng, self.probability):
            return None
        chosen = rng.random(shape[0]) < self.channel_probability
        axes = len(shape) - 1
        scales: list[tuple[float, ...] | None] = []
        for taken in chosen:
            scale = float(rng.uniform(*self.scale))
            kept = (1.0,) if self.keep_axis_0 else ()
            scales.append((*kept, *(scale,) * (axes - len(kept))) if taken else None)
        return LowResolution(tuple(scales))


def reduced_edges(edges: Sequence[int], scales: Sequence[float]) -> list[int]:
    """Edge lengths of the reduced volume. v2's scales are of single precision: it decides what halves round to."""
    return [max(1, round(edge * float(np.float32(scale)))) for edge, scale in zip(edges, scales, strict=True)]


def nearest_indices(from_edge: int, to_edge: int) -> np.ndarray:
    """Source index of each target voxel: the one its centre lies in (torch's ``nearest-exact``)."""
    ratio = np.float32(from_edge) / np.float32(to_edge)
    indices = ((np.arange(to_edge, dtype=np.float32) + np.float32(0.5)) * ratio).astype(np.intp)
    return np.minimum(indices, from_edge - 1)


def reduce_nearest(volume: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """Nearest-voxel resizing of the last ``len(edges)`` axes."""
    for axis, edge in enumerate(edges, start=volume.ndim - len(edges)):
        if volume.shape[axis] != edge:
            volume = np.take(volume, nearest_indices(volume.shape[axis], edge), axis=axis)
    return volume


def enlarge(volume: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """Linear resizing with half-voxel centres; values beyond the outermost centres are held.

    The last axis comes first, while the array is small: its gather is the slowest.
    """
    for axis in reversed(range(volume.ndim)):
        edge = volume.shape[axis]
        if edge == edges[axis]:
            continue
        ratio = np.float32(edge) / np.float32(edges[axis])
        source = (np.arange(edges[axis], dtype=np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)
        source = np.maximum(source, np.float32(0))
        lower = source.astype(np.intp)
        share = (source - lower.astype(np.float32)).reshape(-1, *(1,) * (volume.ndim - 1 - axis))
        below = np.take(volume, lower, axis=axis)
        above = np.take(volume, np.minimum(lower + 1, edge - 1), axis=axis)
        above -= below
        above *= share
        above += below
        volume = above
    return volume
