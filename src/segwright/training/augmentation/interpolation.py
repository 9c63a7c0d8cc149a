"""Reading arrays at the points of a turned and scaled grid: images linearly, labels by the strongest label.

Both take index coordinates ``x = matrix @ output_index + offset`` (float64) and know nothing of patches. Neither uses
torch: SimpleITK's linear resampler is as fast as torch's ``grid_sample`` on one core (1.76 and 1.74 ms for 40x56x40,
55 and 46 ms for 128^3, largest difference 6e-6; scipy 4.0 and 106 ms) and a worker without torch starts four times
faster and takes 180 MiB less.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

OUTSIDE_LABEL = -1
"""What a label map holds where there is no image (method 5.3, 6.2)."""

_BLOCK_POINTS = 1 << 16  # points handled at a time: the coordinates of a block stay in the processor's cache
SCORE_OF_ONE = np.float32(1000)  # v2 compares scores of this scale in half precision; decides which near ties are ties


def sample_image(
    image: np.ndarray, matrix: np.ndarray, offset: Sequence[float], output_shape: Sequence[int]
) -> np.ndarray:
    """Bi- or trilinear interpolation; beyond its outermost voxels the image is 0.

    Args:
        image: (channels, *spatial) float32, two or three spatial axes, both as many as ``matrix`` has rows.
        matrix: (d, d) float64, maps output index steps to input index steps.
        offset: (d,) input index of output index 0.
        output_shape: (d,).

    Returns:
        (channels, *output_shape) float32.
    """
    dimensions = len(output_shape)
    sampler = sitk.ResampleImageFilter()
    sampler.SetNumberOfThreads(1)
    sampler.SetInterpolator(sitk.sitkLinear)
    sampler.SetDefaultPixelValue(0.0)
    sampler.SetSize([int(edge) for edge in reversed(output_shape)])
    transform = sitk.AffineTransform(dimensions)
    transform.SetMatrix(np.ascontiguousarray(matrix[::-1, ::-1]).ravel().tolist())  # ITK's axes run x, y, z
    # A border of one zero makes the image fade out within one voxel, as zero padding does; beyond it ITK writes 0.
    transform.SetTranslation([float(value) + 1.0 for value in reversed(offset)])
    sampler.SetTransform(transform)
    result = np.empty((len(image), *output_shape), np.float32)
    for channel, volume in enumerate(image):
        sampled = sampler.Execute(sitk.GetImageFromArray(_with_zero_border(volume)))
        result[channel] = sitk.GetArrayViewFromImage(sampled)  # `sampled` owns the memory: it must have a name
    return result


def sample_labels(
    labels: np.ndarray, matrix: np.ndarray, offset: Sequence[float], output_shape: Sequence[int]
) -> np.ndarray:
    """At each point the label with the largest interpolated indicator (method 6.2 #1).

    Beyond the array every voxel counts as label -1. As in v2, scores are compared in half precision after scaling by
    1000, and equal ones go to the nearest voxel's label if it is among them, else to the lowest label.

    A cell whose corners all carry one label needs no arithmetic: only points in mixed cells are interpolated.

    Args:
        labels: (channels, *spatial) signed integers; the other arguments as in :func:`sample_image`.

    Returns:
        (channels, *output_shape), type of ``labels``.
    """
    mixed = np.iinfo(labels.dtype).max  # marks cells whose corners differ
    if labels.size and labels.max() == mixed:
        return sample_labels(labels.astype(np.int32), matrix, offset, output_shape).astype(labels.dtype)
    bordered = np.pad(labels, [(0, 0)] + [(1, 1)] * len(output_shape), constant_values=OUTSIDE_LABEL)
    cells = _cell_labels(bordered, mixed)
    cell_edges = cells.shape[1:]
    result = np.empty((len(labels), *output_shape), labels.dtype)
    flat_cells = cells.reshape(len(cells), -1)
    flat_result = result.reshape(len(result), output_shape[0], -1)
    rows = max(1, _BLOCK_POINTS // int(np.prod(output_shape[1:])))
    steps, origin = np.asarray(matrix, np.float64), np.asarray(offset, np.float64) + 1.0
    for first in range(0, output_shape[0], rows):
        last = min(first + rows, output_shape[0])
        points = _coordinates(steps, origin, (first, last), output_shape)
        flat_index = _cell_index(points, cell_edges)
        for channel in range(len(labels)):
            block = np.take(flat_cells[channel], flat_index)
            chosen = np.flatnonzero(block == mixed)
            if chosen.size:
                at = [axis_points[chosen] for axis_points in points]
                block[chosen] = _strongest_labels(bordered[channel], at)
            flat_result[channel, first:last] = block.reshape(last - first, -1)
    return result


def _with_zero_border(volume: np.ndarray) -> np.ndarray:
    bordered = np.zeros([edge + 2 for edge in volume.shape], np.float32)
    bordered[(slice(1, -1),) * volume.ndim] = volume
    return bordered


def _cell_labels(labels: np.ndarray, mixed: int) -> np.ndarray:
    """For each cell between neighbouring voxels the label all its corners share, or ``mixed``."""
    low = high = labels
    for axis in range(1, labels.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        low, high = np.minimum(low[before], low[after]), np.maximum(high[before], high[after])
    return np.where(low == high, low, labels.dtype.type(mixed))


def _coordinates(
    steps: np.ndarray, origin: np.ndarray, rows: tuple[int, int], output_shape: Sequence[int]
) -> list[np.ndarray]:
    """Index coordinates of the points of some rows of axis 0: one flat float32 array an input axis."""
    ranges = [np.arange(*rows), *(np.arange(edge) for edge in output_shape[1:])]
    points = []
    for axis, start in enumerate(origin):
        total = np.asarray(start)
        for output_axis, indices in enumerate(ranges):
            total = total[..., None] + steps[axis, output_axis] * indices
            if output_axis == len(ranges) - 2:
                total = total.astype(np.float32)  # the last, large sum runs in single precision
        points.append(total.astype(np.float32, copy=False).ravel())
    return points


def _cell_index(points: list[np.ndarray], cell_edges: Sequence[int]) -> np.ndarray:
    """Flat index of the cell each point lies in; points beyond the array go to its border, which is label -1."""
    index = np.zeros(points[0].shape, np.intp)
    for axis_points, edge in zip(points, cell_edges, strict=True):
        lower = axis_points.astype(np.int32)  # rounds towards 0 like floor: what is negative is cut to 0 anyway
        np.clip(lower, 0, edge - 1, out=lower)
        index *= edge
        index += lower
    return index


def _strongest_labels(labels: np.ndarray, points: list[np.ndarray]) -> np.ndarray:
    """Labels of points in mixed cells of one bordered label map; ``points`` as in :func:`_coordinates`."""
    inside = [np.clip(axis_points, 0, edge - 1) for axis_points, edge in zip(points, labels.shape, strict=True)]
    lower = [np.minimum(axis.astype(np.intp), edge - 2) for axis, edge in zip(inside, labels.shape, strict=True)]
    share = [axis - low.astype(np.float32) for axis, low in zip(inside, lower, strict=True)]
    corners, weights = [], []
    strides = [int(np.prod(labels.shape[axis + 1 :])) for axis in range(labels.ndim)]
    base = sum(low * stride for low, stride in zip(lower, strides, strict=True))
    for corner in np.ndindex(*(2,) * labels.ndim):
        step = sum(bit * stride for bit, stride in zip(corner, strides, strict=True))
        corners.append(np.take(labels.ravel(), base + step))
        weight = SCORE_OF_ONE
        for bit, axis_share in zip(corner, share, strict=True):
            weight = weight * (axis_share if bit else np.float32(1) - axis_share)
        weights.append(weight)
    # Halves go to the even index; without the border, as in v2, or they would go the other way.
    rounded = [np.rint(axis - np.float32(1)).astype(np.intp) + 1 for axis in inside]
    nearest = np.take(labels.ravel(), sum(axis * stride for axis, stride in zip(rounded, strides, strict=True)))
    return _highest_scores(np.array(corners), np.array(weights), nearest)


def _highest_scores(corners: np.ndarray, weights: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The label with the largest sum of weights at each point; ``corners`` and ``weights``: (corners, points)."""
    labels = np.unique(corners)
    # With many labels the corners' own labels are fewer candidates than all labels; the cost stays bounded.
    candidates = labels if len(labels) <= len(corners) else corners
    best = np.full(nearest.shape, -1, np.float32)
    nearest_score = np.zeros(nearest.shape, np.float32)
    winner = np.full(nearest.shape, np.iinfo(nearest.dtype).max, nearest.dtype)
    for label in candidates:
        score = (weights * (corners == label)).sum(axis=0)
        score = score.astype(np.float16).astype(np.float32)  # rounded to half, compared in the faster single precision
        better = (score > best) | ((score == best) & (label < winner))
        np.copyto(winner, label, where=better)
        np.maximum(best, score, out=best)
        np.copyto(nearest_score, score, where=nearest == label)
    return np.where(nearest_score == best, nearest, winner)
