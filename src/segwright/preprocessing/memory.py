"""Memory a case needs while it is preprocessed, estimated from shapes alone (for ``mem_mb`` of a job)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from segwright.core.slices import PreprocessPlan
from segwright.preprocessing.resampling import new_shape_after

PROGRAM_MB = 200
"""Interpreter, numpy, scipy and SimpleITK."""

SAFETY = 1.2


def estimate_memory_mb(
    shape_zyx: Sequence[int], spacing_mm: Sequence[float], plan: PreprocessPlan, channels: int
) -> int:
    """Peak resident memory of one worker that preprocesses one case, in MB (10^6 bytes), rounded up.

    Args:
        shape_zyx, spacing_mm: of the raw image, axes as in the file (before the plan's transposition). Cropping is not
            foreseen: it only makes the case smaller.
        channels: image channels.
    """
    raw, new = prod(shape_zyx), prod(stored_shape(shape_zyx, spacing_mm, plan))  # voxels
    item_bytes = 4 if _values_stay_small(plan) else 8
    # Reading: the file's pixels beside the float32 image. Afterwards: raw image, label maps and mask, and then for one
    # channel a working copy and up to two intermediate volumes, beside the finished image and label map.
    reading_bytes = raw * (channels * 4 + 4 + 2)
    largest = max(raw, new)
    working_bytes = raw * (channels * 4 + 3) + new * (channels * 4 + 2) + raw * 4 + item_bytes * (raw + largest)
    locations_bytes = raw * (channels * 4 + 1) + new * (channels * 4 + 1 + (26 if plan.labels.ignore_label else 10))
    peak_bytes = max(reading_bytes, working_bytes, locations_bytes)
    return PROGRAM_MB + ceil(SAFETY * peak_bytes / 1e6)


def stored_shape(shape_zyx: Sequence[int], spacing_mm: Sequence[float], plan: PreprocessPlan) -> tuple[int, ...]:
    """Voxels of the preprocessed case, in the plan's order of axes; arguments as above."""
    shape = [shape_zyx[axis] for axis in plan.transpose_forward]
    before_mm = [spacing_mm[axis] for axis in plan.transpose_forward]
    new_shape = new_shape_after(shape, before_mm, plan.target_spacing_mm(before_mm))
    return tuple(max(1, edge) for edge in new_shape)


def _values_stay_small(plan: PreprocessPlan) -> bool:
    """Whether resampling can work in float32: normalised images; raw intensities need float64."""
    return plan.order_of_steps == "normalize_first" and "NoNormalization" not in plan.normalization_schemes
