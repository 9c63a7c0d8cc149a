"""Targets at the resolutions of the decoder's outputs (method 6.2 #14, 8.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segwright.training.augmentation.low_resolution import reduce_nearest


def supervision_shapes(
    patch_size: Sequence[int], strides: Sequence[Sequence[int]], deep_supervision: bool
) -> tuple[tuple[int, ...], ...]:
    """Spatial shapes of the targets, high to low: every stage but the last, or the full resolution alone."""
    scales = 1.0 / np.cumprod(np.asarray(strides, np.float64), axis=0)
    used = scales[:-1] if deep_supervision and len(scales) > 1 else scales[:1]
    return tuple(
        tuple(round(edge * float(scale)) for edge, scale in zip(patch_size, axis_scales, strict=True))
        for axis_scales in used
    )


def supervision_targets(target: np.ndarray, shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """(channels, *spatial) to one array a shape, each voxel the label its centre lies in (nearest-exact)."""
    return [reduce_nearest(target, shape) for shape in shapes]
