"""From network scores on the stored grid to labels on a finer or coarser one, without resampling every class.

The rule (method 10.4): every output channel is resampled with order 1 (slice-wise, and nearest along the slice axis,
where the spacing is anisotropic), then the best channel wins, or every region is thresholded. Interpolation weights are
convex, so where one class wins at all corners of an interpolation cell it wins inside; only the other cells ("mixed",
0.3 % of the output for 3 organs) are interpolated, and there only the classes that can win. The labels are those of
interpolating everything in float64. Memory: the scores, the labels and one slab.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segwright.core.errors import PlansError
from segwright.core.plans import Resampling
from segwright.preprocessing.axes import linear_taps, nearest_index
from segwright.preprocessing.resampling import separate_z_axis

_SLAB_VALUES = 1 << 22  # values of a slab's largest temporary array: bounds the memory
_LABEL_SLAB_VALUES = 1 << 20  # stays in the cache, and is small enough for the C library to use its memory again


@dataclass(frozen=True)
class Axis:
    """Where the outputs along one axis lie between the inputs.

    Attributes:
        n_in: number of inputs.
        lower: (n_out,) index of the input at or below each output; never decreases.
        weight: (n_out,) float64, share of the input ``lower + 1``; None where outputs are copies of single inputs.
    """

    n_in: int
    lower: np.ndarray
    weight: np.ndarray | None

    @property
    def n_out(self) -> int:
        return len(self.lower)

    def inputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """Range of inputs that the outputs ``start:stop`` need."""
        reach = 1 if self.weight is None else 2
        return int(self.lower[start]), int(self.lower[stop - 1]) + reach


def linear_axis(n_in: int, n_out: int) -> Axis:
    """Order 1, clamped at the border (method 4.5)."""
    if n_in == n_out or n_in == 1:
        return nearest_axis(n_in, n_out)
    taps = linear_taps(n_in, n_out)
    lower = np.minimum(taps.low, n_in - 2)  # so that `lower + 1` always exists
    return Axis(n_in, lower, np.where(taps.low > lower, 1.0, taps.weight_high))


def nearest_axis(n_in: int, n_out: int) -> Axis:
    """Order 0 with the same voxel centres."""
    return Axis(n_in, nearest_index(n_in, n_out), None)


def resampling_axes(
    shape_zyx: Sequence[int],
    new_shape_zyx: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    how: Resampling,
) -> tuple[Axis, Axis, Axis]:
    """The three axes of one resampling; which axis is treated slice-wise follows from the spacing (method 4.5).

    Raises:
        PlansError: an order above 1, whose weights are not convex (no planner writes one for scores).
    """
    if how.order > 1 or how.order_z > 1:
        raise PlansError(f"plans: scores can be resampled with order 0 or 1, not {how.order} and {how.order_z}")
    slices = separate_z_axis(current_spacing_mm, new_spacing_mm, how.force_separate_z)
    axes = []
    for axis, (n_in, n_out) in enumerate(zip(shape_zyx, new_shape_zyx, strict=True)):
        order = how.order_z if axis == slices else how.order
        axes.append(linear_axis(n_in, n_out) if order == 1 else nearest_axis(n_in, n_out))
    return axes[0], axes[1], axes[2]


def winning_labels(scores_czyx: np.ndarray, axes: tuple[Axis, Axis, Axis], dtype: str) -> np.ndarray:
    """Index of the highest interpolated score at each output voxel; the first of equals wins.

    Args:
        scores_czyx: (outputs, z, y, x) float32, finite.
        dtype: type of the labels; its highest value must be free (it marks mixed cells on the way).
    """
    mixed = int(np.iinfo(np.dtype(dtype)).max)
    cells = _cells(_best_channel(scores_czyx, dtype), axes, mixed)
    labels = np.empty(tuple(axis.n_out for axis in axes), dtype)
    for start, stop in _slabs(axes, _LABEL_SLAB_VALUES):
        slab = labels[start:stop]
        _spread(cells, axes, start, slab)
        at = _Positions(slab, mixed, axes, start)
        if at.count:
            slab.reshape(-1)[at.flat] = _best_of_mixed(scores_czyx, at)
    return labels


def region_labels(
    scores_czyx: np.ndarray, axes: tuple[Axis, Axis, Axis], class_order: Sequence[int], threshold: float, dtype: str
) -> np.ndarray:
    """Regions whose interpolated score exceeds ``threshold`` write their label in order, later over earlier (10.4).

    Logits are compared with 0, which is what "sigmoid > 0.5" means; probabilities with 0.5.
    """
    labels = np.zeros(tuple(axis.n_out for axis in axes), dtype)
    mixed = 2
    for region, value in enumerate(class_order):
        inside = (scores_czyx[region] > threshold).astype(np.uint8)
        cells = _cells(inside, axes, mixed)
        for start, stop in _slabs(axes, _LABEL_SLAB_VALUES):
            slab = np.empty((stop - start, *labels.shape[1:]), np.uint8)
            _spread(cells, axes, start, slab)
            at = _Positions(slab, mixed, axes, start)
            if at.count:
                slab.reshape(-1)[at.flat] = at.interpolate(scores_czyx[region].reshape(-1), 0) > threshold
            labels[start:stop][slab == 1] = value
    return labels


def interpolate_slabs(
    scores_czyx: np.ndarray, axes: tuple[Axis, Axis, Axis], start: int, stop: int, first_plane: int = 0
) -> np.ndarray:
    """All scores of the output planes ``start:stop``, float32 (outputs, stop - start, y, x).

    ``scores_czyx`` may be only the input planes from ``first_plane`` on, as a file read in parts gives them.
    """
    first, last = axes[0].inputs_of(start, stop)
    slab = scores_czyx[:, first - first_plane : last - first_plane]
    slab = _along(slab, axes[2], 3, slice(None), 0)  # x first: its strided copies are dear, and smallest here
    slab = _along(slab, axes[1], 2, slice(None), 0)
    return _along(slab, axes[0], 1, slice(start, stop), first)


def slabs_of(axes: tuple[Axis, Axis, Axis], channels: int) -> Iterator[tuple[int, int]]:
    """Cut the output into z ranges whose values for ``channels`` channels are few enough to be worked on at once."""
    return _slabs(axes, max(1, _SLAB_VALUES // channels))


def _best_channel(scores_czyx: np.ndarray, dtype: str) -> np.ndarray:
    """Arg-max over the first axis, plane by plane: several times faster than ``argmax(axis=0)``, and no int64 copy."""
    winner = np.zeros(scores_czyx.shape[1:], dtype)
    for z in range(scores_czyx.shape[1]):
        best = scores_czyx[0, z].copy()
        for channel in range(1, len(scores_czyx)):
            better = scores_czyx[channel, z] > best
            np.maximum(best, scores_czyx[channel, z], out=best)
            np.copyto(winner[z], channel, where=better)
    return winner


def _cells(winner_zyx: np.ndarray, axes: tuple[Axis, Axis, Axis], mixed: int) -> np.ndarray:
    """The common winner of the corners of the cell that begins at each voxel, or ``mixed``."""
    cells = winner_zyx.copy()
    for number, axis in enumerate(axes):
        if axis.weight is None:
            continue
        here, there = [slice(None)] * 3, [slice(None)] * 3
        here[number], there[number] = slice(None, -1), slice(1, None)
        low, high = cells[tuple(here)], cells[tuple(there)]
        cells = np.where(low == high, low, low.dtype.type(mixed))
        pad = [(0, 0)] * 3
        pad[number] = (0, 1)  # no cell begins at the last voxel: `lower` never points there
        cells = np.pad(cells, pad)
    return cells


def _spread(cells_zyx: np.ndarray, axes: tuple[Axis, Axis, Axis], start: int, slab: np.ndarray) -> None:
    """Fill the output planes from ``start`` on with their voxels' cells; x first, where the copies are smallest."""
    lower_z = axes[0].lower[start : start + len(slab)]
    first = int(lower_z[0])
    needed = cells_zyx[first : int(lower_z[-1]) + 1]
    planes = needed.take(axes[2].lower, axis=2).take(axes[1].lower, axis=1)
    planes.take(lower_z - first, axis=0, out=slab, mode="clip")  # only so it writes to `slab` without a copy


def _slabs(axes: tuple[Axis, Axis, Axis], values: int) -> Iterator[tuple[int, int]]:
    """Ranges of output planes of at most ``values`` voxels each (at least one plane)."""
    planes = max(1, values // (axes[1].n_out * axes[2].n_out))
    for start in range(0, axes[0].n_out, planes):
        yield start, min(start + planes, axes[0].n_out)


@dataclass(frozen=True)
class _Lerp:
    """Interpolation along one axis at some voxels: the offset to the upper corner, and both corners' float64 shares."""

    stride: int
    lower: np.ndarray
    upper: np.ndarray

    def at(self, chosen: np.ndarray) -> _Lerp:
        return _Lerp(self.stride, self.lower[chosen], self.upper[chosen])


class _Positions:
    """The mixed voxels of one slab: where they are, and how to interpolate there.

    Attributes:
        flat: positions within the slab. base: flat index of the lowest corner in the scores of one channel.
    """

    def __init__(self, slab: np.ndarray, mixed: int, axes: tuple[Axis, Axis, Axis], start: int) -> None:
        self.flat = np.flatnonzero(slab == mixed)
        self.count = len(self.flat)
        z, y, x = np.unravel_index(self.flat, slab.shape)
        strides = (axes[1].n_in * axes[2].n_in, axes[2].n_in, 1)
        self.base = np.zeros(self.count, np.intp)
        self.linear: list[_Lerp] = []  # z to x
        for axis, index, stride in zip(axes, (z + start, y, x), strides, strict=True):
            self.base += axis.lower[index] * stride
            if axis.weight is not None:
                upper = axis.weight[index]
                self.linear.append(_Lerp(stride, 1 - upper, upper))

    def corner_offsets(self) -> list[int]:
        """Offsets of a cell's corners from its lowest one."""
        offsets = [0]
        for lerp in self.linear:
            offsets += [offset + lerp.stride for offset in offsets]
        return offsets

    def interpolate(self, values: np.ndarray, shift: int | np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """Float64 scores at the mixed (or the ``chosen``) voxels; ``shift`` leads to a channel in flat ``values``."""
        base = (self.base if chosen is None else self.base[chosen]) + shift
        linear = self.linear if chosen is None else [lerp.at(chosen) for lerp in self.linear]
        return _interpolate(values, base, linear)


def _interpolate(values: np.ndarray, base: np.ndarray, linear: Sequence[_Lerp]) -> np.ndarray:
    """Multilinear interpolation at flat positions: along the first axis of ``linear`` last."""
    if not linear:
        return values[base].astype(np.float64)
    last, rest = linear[0], linear[1:]
    result = _interpolate(values, base, rest)
    upper = _interpolate(values, base + last.stride, rest)
    result *= last.lower
    upper *= last.upper
    result += upper
    return result


def _best_of_mixed(scores_czyx: np.ndarray, at: _Positions) -> np.ndarray:
    """Winner at each mixed voxel.

    A class can win inside a cell only if its highest corner reaches the best of all classes' lowest corners: of 60
    classes two or three remain. They are compared in ascending order, so the first of equals wins.
    """
    first = int(at.base.min())
    number_of_cell = np.zeros(int(at.base.max()) - first + 1, np.int32)
    number_of_cell[at.base - first] = 1
    cell_base = np.flatnonzero(number_of_cell)
    number_of_cell[cell_base] = np.arange(len(cell_base), dtype=np.int32)
    cell = number_of_cell[at.base - first]
    cell_base += first

    classes, begin = _candidates(scores_czyx, cell_base, at.corner_offsets())
    values, per_channel = scores_czyx.reshape(-1), scores_czyx[0].size
    label = classes[begin[cell]]
    score = at.interpolate(values, label * per_channel)
    left = begin[cell + 1] - begin[cell]
    chosen = np.flatnonzero(left > 1)
    rank = 1
    while len(chosen):
        challenger = classes[begin[cell[chosen]] + rank]
        value = at.interpolate(values, challenger * per_channel, chosen)
        better = value > score[chosen]
        winners = chosen[better]
        score[winners], label[winners] = value[better], challenger[better]
        rank += 1
        chosen = chosen[left[chosen] > rank]
    return label


def _candidates(
    scores_czyx: np.ndarray, cell_base: np.ndarray, offsets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Classes that can win in each cell: ``classes[begin[i]:begin[i + 1]]`` ascending, for cell ``i``."""
    at_once = max(1, _SLAB_VALUES // len(scores_czyx))
    classes, counts = [], []
    for start in range(0, len(cell_base), at_once):
        possible = _can_win(scores_czyx, cell_base[start : start + at_once], offsets)
        classes.append(np.nonzero(possible.T)[1])
        counts.append(possible.sum(axis=0))
    begin = np.zeros(len(cell_base) + 1, np.intp)
    np.cumsum(np.concatenate(counts), out=begin[1:])
    return np.concatenate(classes), begin


def _can_win(scores_czyx: np.ndarray, cell_base: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """(outputs, cells) bool: the class's highest corner reaches the best lowest corner."""
    best_lowest = np.full(len(cell_base), -np.inf, np.float32)
    highest = np.empty((len(scores_czyx), len(cell_base)), np.float32)
    for channel, scores_zyx in enumerate(scores_czyx):
        flat = scores_zyx.reshape(-1)
        low = flat[cell_base]
        high = low.copy()
        for offset in offsets[1:]:
            corner = flat[cell_base + offset]
            np.minimum(low, corner, out=low)
            np.maximum(high, corner, out=high)
        np.maximum(best_lowest, low, out=best_lowest)
        highest[channel] = high
    return highest >= best_lowest


def _along(values: np.ndarray, axis: Axis, number: int, outputs: slice, first: int) -> np.ndarray:
    """Interpolate along one axis in float32; ``first`` is the input index at which ``values`` begins."""
    lower = axis.lower[outputs] - first
    if axis.weight is None:
        if len(lower) == values.shape[number] and np.array_equal(lower, np.arange(len(lower))):
            return values
        return values.take(lower, axis=number)
    shape = [1] * values.ndim
    shape[number] = -1
    weight = axis.weight[outputs].astype(np.float32).reshape(shape)
    result = values.take(lower, axis=number)
    upper = values.take(lower + 1, axis=number)
    upper -= result
    upper *= weight
    result += upper
    return result
