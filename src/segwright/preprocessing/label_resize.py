"""Resizing of label maps: the label whose interpolated indicator is largest, computed only where labels meet.

By definition (method 4.5) each label's 0/1 indicator is resized linearly, and a voxel takes the label with the largest
value. The weights of a cell's corners are not negative and sum to one, so a cell whose corners carry one label gets
that label; only mixed cells (1 to 3 % of the voxels of an organ map) are interpolated. There the sums are made in
float64 in scipy's order (corners in C order, each the product of its weights in axis order), so that exact ties fall
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segwright.preprocessing.axes import LinearTaps, axis_matrix, linear_taps, nearest_index

_SLAB_VOXELS = 4_000_000  # output voxels worked on at a time: bounds the memory
_CHUNK_VOXELS = 1 << 16  # mixed voxels interpolated at a time: stays within the cache

Rule = Literal["argmax", "threshold"]


def resize_labels(label: NDArray[Any], shape: Sequence[int], order: int, rule: Rule = "argmax") -> NDArray[Any]:
    """Resize a label map of 2 or 3 axes; same dtype. Axes that keep their extent are not interpolated.

    Args:
        label: integers; -1 is a label like any other.
        order: 0 takes the nearest voxel, 1 interpolates indicators linearly; higher orders use spline indicators.
        rule: ``argmax``: the largest indicator wins, exact ties go to the label of the nearest voxel if it is among the
            tied ones, else to the smallest of them (batchgenerators 0.25.5). ``threshold``: labels ascending, each
            overwrites where its indicator reaches 0.5; 0 where none does (v1, older v2).
    """
    if label.shape == tuple(shape):
        return label
    if order == 0:
        return _take_along_axes(label, [nearest_index(n, m) for n, m in zip(label.shape, shape, strict=True)])
    if order == 1:
        return _resize_linear(label, shape, rule)
    return _resize_by_indicators(label, shape, order, rule)


def resize_along_axis(label: NDArray[Any], n_out: int, order: int) -> NDArray[Any]:
    """Resample axis 0 with order > 0: ascending labels, each overwrites where its indicator rounds to one; else 0."""
    matrix = axis_matrix(label.shape[0], n_out, order, "float64")
    resized = np.zeros((n_out, *label.shape[1:]), label.dtype)
    for value in np.unique(label):
        resized[np.round(matrix.apply((label == value).astype(np.float64), 0)) > 0.5] = value
    return resized


def _resize_linear(label: NDArray[Any], shape: Sequence[int], rule: Rule) -> NDArray[Any]:
    label = np.ascontiguousarray(label)
    taps = [linear_taps(n_in, n_out, split_border=True) for n_in, n_out in zip(label.shape, shape, strict=True)]
    changing = [axis for axis in range(label.ndim) if label.shape[axis] != shape[axis]]
    coded, mixed_code = _code_mixed_cells(label, changing)
    resized = np.empty(tuple(shape), label.dtype)
    rows_per_slab = max(1, _SLAB_VOXELS // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], rows_per_slab):
        stop = min(start + rows_per_slab, shape[0])
        slab = _take_along_axes(coded, [taps[0].low[start:stop], *(tap.low for tap in taps[1:])])
        mixed = np.flatnonzero(slab == mixed_code)
        resized[start:stop] = slab
        target = resized[start:stop].reshape(-1)
        for first in range(0, mixed.size, _CHUNK_VOXELS):
            chunk = mixed[first : first + _CHUNK_VOXELS]
            index = list(np.unravel_index(chunk, slab.shape))
            index[0] = index[0] + start
            target[chunk] = _interpolate_voxels(label, taps, changing, index, rule)
    return resized


def _code_mixed_cells(label: NDArray[Any], axes: Sequence[int]) -> tuple[NDArray[Any], int]:
    """Copy of ``label`` in which every cell with different corners carries a code that no label uses.

    The cell of a voxel reaches from it to the next voxel along ``axes``.
    """
    smallest, largest = label, label
    for axis in axes:
        smallest, largest = _with_next(smallest, axis, np.minimum), _with_next(largest, axis, np.maximum)
    code = int(np.iinfo(label.dtype).min)
    coded = label.copy()
    if int(label.min()) == code:
        code = int(np.iinfo(label.dtype).max)
        if int(label.max()) == code:
            coded, code = label.astype(np.int64), 1 << 40
    coded[smallest != largest] = code
    return coded, code


def _with_next(array: NDArray[Any], axis: int, combine: Any) -> NDArray[Any]:
    """Combine each entry with its successor along ``axis``; the last one stays."""
    combined = array.copy()
    here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(array.ndim))
    following = tuple(slice(1, None) if a == axis else slice(None) for a in range(array.ndim))
    combine(array[here], array[following], out=combined[here])
    return combined


def _interpolate_voxels(
    label: NDArray[Any], taps: Sequence[LinearTaps], axes: Sequence[int], index: Sequence[NDArray[Any]], rule: Rule
) -> NDArray[Any]:
    """Labels of single output voxels by their interpolated indicators. ``index``: output coordinates per axis, (k,)."""
    flat = label.reshape(-1)
    strides = [int(np.prod(label.shape[axis + 1 :])) for axis in range(label.ndim)]
    origin = sum(tap.low[i] * stride for tap, i, stride in zip(taps, index, strides, strict=True))
    steps = {axis: (taps[axis].high - taps[axis].low)[index[axis]] * strides[axis] for axis in axes}
    sides = {axis: (taps[axis].weight_low[index[axis]], taps[axis].weight_high[index[axis]]) for axis in axes}
    labels, weights = [], []
    for corner in product((0, 1), repeat=len(axes)):
        offset, weight = origin, np.float64(1)
        for axis, side in zip(axes, corner, strict=True):
            offset = offset + steps[axis] if side else offset
            weight = weight * sides[axis][side]
        labels.append(flat[offset])
        weights.append(weight)
    nearest = sum(tap.nearest[i] * stride for tap, i, stride in zip(taps, index, strides, strict=True))
    return _choose(np.stack(labels), np.stack(weights), flat[nearest], rule)


def _choose(
    labels_ck: NDArray[Any], weights_ck: NDArray[np.float64], nearest_k: NDArray[Any], rule: Rule
) -> NDArray[Any]:
    """The winning label of each of k voxels, given the labels and weights of its corners (c, k)."""
    low_k, high_k = labels_ck.min(axis=0), labels_ck.max(axis=0)
    is_low, is_high = labels_ck == low_k, labels_ck == high_k
    low_score, high_score = _score(weights_ck, is_low), _score(weights_ck, is_high)
    if rule == "argmax":
        chosen_k = np.where(high_score > low_score, high_k, low_k)
        chosen_k = np.where(high_score == low_score, nearest_k, chosen_k)
    else:
        chosen_k = np.where(low_score >= 0.5, low_k, np.zeros_like(low_k))
        chosen_k = np.where(high_score >= 0.5, high_k, chosen_k)
    several = np.flatnonzero(~(is_low | is_high).all(axis=0))  # three or more labels meet
    if several.size:
        chosen_k[several] = _choose_of_many(labels_ck[:, several], weights_ck[:, several], nearest_k[several], rule)
    return chosen_k


def _choose_of_many(
    labels_ck: NDArray[Any], weights_ck: NDArray[np.float64], nearest_k: NDArray[Any], rule: Rule
) -> NDArray[Any]:
    """As :func:`_choose`, for any number of different labels at the corners."""
    scores_ck = np.stack([_score(weights_ck, labels_ck == label_k) for label_k in labels_ck])
    if rule == "threshold":
        reached = np.where(scores_ck >= 0.5, labels_ck, np.iinfo(labels_ck.dtype).min).max(axis=0)
        return np.where((scores_ck >= 0.5).any(axis=0), reached, np.zeros_like(reached))
    best_k = scores_ck.max(axis=0)
    smallest_k = np.where(scores_ck == best_k, labels_ck, np.iinfo(labels_ck.dtype).max).min(axis=0)
    return np.where(_score(weights_ck, labels_ck == nearest_k) == best_k, nearest_k, smallest_k)


def _score(weights_ck: NDArray[np.float64], member_ck: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum of the weights of the member corners, added corner by corner: the order decides the last bit."""
    score_k = np.where(member_ck[0], weights_ck[0], 0.0)
    for member_k, weight_k in zip(member_ck[1:], weights_ck[1:], strict=True):
        score_k += weight_k * member_k
    return score_k


def _resize_by_indicators(label: NDArray[Any], shape: Sequence[int], order: int, rule: Rule) -> NDArray[Any]:
    """Resize with spline indicators of order 2 to 5, whose weights may be negative: one whole volume per label.

    Axes that keep their extent separate the volume into independent slices, each clipped to its own range and holding
    its own set of labels, as nnU-Net does with a separate axis.
    """
    if label.ndim == 3 and label.shape[0] == shape[0]:
        return np.stack([_resize_by_indicators(slice_yx, shape[1:], order, rule) for slice_yx in label])
    nearest = resize_labels(label, shape, 0)
    resized = np.zeros(tuple(shape), label.dtype)
    best = np.full(tuple(shape), -np.inf)
    nearest_is_best = np.zeros(tuple(shape), bool)
    for value in np.unique(label):
        score = (label == value).astype(np.float64)
        low, high = score.min(), score.max()
        for axis in range(label.ndim):
            if score.shape[axis] != shape[axis]:
                score = axis_matrix(score.shape[axis], shape[axis], order, "float64").apply(score, axis)
        np.clip(score, low, high, out=score)
        if rule == "threshold":
            resized[score >= 0.5] = value
            continue
        resized[score > best] = value
        nearest_is_best = np.where(
            score > best, nearest == value, nearest_is_best | ((score == best) & (nearest == value))
        )
        np.maximum(best, score, out=best)
    return resized if rule == "threshold" else np.where(nearest_is_best, nearest, resized)


def _take_along_axes(array: NDArray[Any], indices: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    """``array[np.ix_(*indices)]``, one axis after the other, shrinking axes first."""
    order = sorted(range(array.ndim), key=lambda axis: len(indices[axis]) / array.shape[axis])
    for axis in order:
        if len(indices[axis]) != array.shape[axis] or not np.array_equal(indices[axis], np.arange(array.shape[axis])):
            array = np.take(array, indices[axis], axis=axis)
    return array
