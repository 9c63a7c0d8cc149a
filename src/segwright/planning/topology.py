"""Which axes are halved how often, and with which kernels: the shape of the U-Net (method 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_EDGE = 4
"""A feature map never gets shorter than this by pooling."""
AXIS_RATIO = 2.0
"""Axes pool together, and get a kernel of 3, while their spacings differ by less than this factor."""


@dataclass(frozen=True)
class Topology:
    """The stages of a U-Net, highest resolution first; all tuples over axes are in transposed order.

    Attributes:
        pools: how often each axis is halved.
        strides: stride with which each stage is entered, first one all ones.
        kernels: kernel size of each stage; same length as ``strides``.
        patch_size: the size it was made for, rounded up to multiples of ``divisors``.
        divisors: 2 ** pools.
    """

    pools: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisors: tuple[int, ...]

    @property
    def n_stages(self) -> int:
        return len(self.strides)

    @property
    def bottleneck_size(self) -> tuple[int, ...]:
        """Edge of the lowest feature map, in voxels."""
        return tuple(edge // divisor for edge, divisor in zip(self.patch_size, self.divisors, strict=True))


def derive_topology(spacing_mm: Sequence[float], size: Sequence[float], max_stages: int | None = None) -> Topology:
    """Derive pooling and kernels from spacing and size (method 3.4, nnU-Net v2).

    In every round the poolable axes are those still at least 8 long whose spacing is within a factor 2 of the finest
    of them; a single remaining axis must be at least 12 long. A kernel edge turns 3 as soon as the axis is within a
    factor 2 of the finest of *all* axes and stays 3.

    Args:
        spacing_mm: two or three spacings.
        size: patch size in voxels, whole or half numbers.
        max_stages: stop after so many stages (not in v2); None: no limit.
    """
    dimensions = len(spacing_mm)
    spacing = [float(value) for value in spacing_mm]
    current: list[float] = list(size)
    kernel, pools = [1] * dimensions, [0] * dimensions
    strides, kernels = [(1,) * dimensions], []
    while max_stages is None or len(strides) < max_stages:
        axes = _poolable_axes(spacing, current)
        if not axes:
            break
        finest = min(spacing)
        for axis in range(dimensions):
            if spacing[axis] / finest < AXIS_RATIO:
                kernel[axis] = 3
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(dimensions)))
        for axis in axes:
            pools[axis] += 1
            spacing[axis] *= 2
            current[axis] = math.ceil(current[axis] / 2)
    kernels.append((3,) * dimensions)
    divisors = tuple(2**count for count in pools)
    padded = tuple(math.ceil(edge / divisor) * divisor for edge, divisor in zip(size, divisors, strict=True))
    return Topology(tuple(pools), tuple(strides), tuple(kernels), padded, divisors)


def bounded_topology(
    spacing_mm: Sequence[float], size: Sequence[float], max_edge: int | None, max_stages: int | None
) -> Topology:
    """As :func:`derive_topology`, but where rounding up would exceed ``max_edge`` the edge is rounded down instead."""
    topology = derive_topology(spacing_mm, size, max_stages)
    while max_edge is not None and max(topology.patch_size) > max_edge:
        size = [
            min(edge, max_edge // divisor * divisor) if padded > max_edge else edge
            for edge, padded, divisor in zip(size, topology.patch_size, topology.divisors, strict=True)
        ]
        topology = derive_topology(spacing_mm, size, max_stages)
    return topology


def nearest_legal_sizes(
    spacing_mm: Sequence[float], size: Sequence[int], axis: int, max_stages: int | None = None
) -> tuple[int | None, int]:
    """The next smaller and the next larger edge along ``axis`` that the network halves without remainder.

    The other edges are kept. There may be no smaller one (None).
    """

    def legal(edge: int) -> bool:
        candidate = [edge if other == axis else kept for other, kept in enumerate(size)]
        return derive_topology(spacing_mm, candidate, max_stages).patch_size[axis] == edge

    below = next((edge for edge in range(size[axis] - 1, 0, -1) if legal(edge)), None)
    above = next(edge for edge in range(size[axis] + 1, 2 * size[axis] + 2 * MIN_EDGE) if legal(edge))
    return below, above


def _poolable_axes(spacing: Sequence[float], size: Sequence[float]) -> list[int]:
    long_enough = [axis for axis, edge in enumerate(size) if edge >= 2 * MIN_EDGE]
    if not long_enough:
        return []
    finest = min(spacing[axis] for axis in long_enough)
    axes = [axis for axis in long_enough if spacing[axis] / finest < AXIS_RATIO]
    if len(axes) == 1 and size[axes[0]] < 3 * MIN_EDGE:
        return []
    return axes
