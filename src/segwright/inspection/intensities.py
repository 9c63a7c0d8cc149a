"""Foreground intensities: counted per case, mixed over cases so that every case weighs the same.

nnU-Net v2 draws the same number of foreground voxels with replacement from every case and pools them (method 2.2).
Here the limit of infinitely many draws is computed instead: the mixture of the cases' empirical distributions, each
with weight 1/(number of cases with foreground). Mean and standard deviation of the mixture are exact. v2's statistics
scatter about these by its sampling error, up to 0.9 % of the standard deviation (docs/explanation/differences.md).

Percentiles: that of share q is the value up to which more than q of the mixture lies. Where a value ends at q exactly
it is the middle between it and the next one, because half of v2's seeds give the one and half the other (numpy calls
that ``averaged_inverted_cdf``). v2 interpolates, but between draws so many that neighbours are the same voxel.

Sketch: a channel of a case with more than 65536 different foreground values (a float image) keeps 16384 groups of
neighbouring voxels: voxel of rank q in (0, 1) goes to group floor(16384 / pi * arccos(1 - 2 q)), which makes groups
small at both ends: they hold 1.4e-5 of the voxels at the percentiles 0.5 and 99.5 and 1e-4 at the median. A group is
its mean and its size, so a percentile is off by at most one group. Moments, minimum and maximum stay exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segwright.core.plans import IntensityStatistics
from segwright.inspection.records import Intensities

EXACT_VALUES = 65_536
SKETCH_GROUPS = 16_384
MIXED_VALUES = 1 << 22  # most values a mixture keeps (about 100 MB); beyond, it becomes a sketch of 1/16 of that
_DENSE_RANGE = 1 << 22  # widest range of whole numbers that is counted in one array
_DENSE_PER_VOXEL = 16  # ... unless there are too few voxels to make that worth while
_SAME_SHARE = 1e-9  # sums of a mixture's weights are rounded by less
_BLOCK_VOXELS = 1 << 18  # small enough for the cache: counting converts each block to 8-byte integers


@dataclass(frozen=True)
class ValueCounts:
    """Foreground voxels of one channel of one case: values (k,) float32 ascending, counts (k,) int64, and moments."""

    values: NDArray[np.float32]
    counts: NDArray[np.int64]
    summary: Intensities


def count_values(voxels: NDArray[np.float32]) -> ValueCounts:
    """Count the values of finite foreground voxels, shape (n,); whole numbers without sorting."""
    if voxels.size == 0:
        return ValueCounts(voxels, np.zeros(0, np.int64), Intensities(0, 0.0, 0.0, 0.0, 0.0))
    low, high = float(voxels.min()), float(voxels.max())
    if high - low < min(_DENSE_RANGE, _DENSE_PER_VOXEL * voxels.size + 65_536) and _are_whole(voxels):
        dense = _count_whole(voxels, int(low), int(high))
        offsets = np.flatnonzero(dense)
        values, counts = (offsets + int(low)).astype(np.float32), dense[offsets]
    else:
        values, counts = np.unique(voxels, return_counts=True)
    exact = values.astype(np.float64)
    mean = float(np.average(exact, weights=counts))
    variance = float(np.average((exact - mean) ** 2, weights=counts))
    sketched = values.size > EXACT_VALUES
    if sketched:
        means, sizes = _sketch(exact, counts.astype(np.float64), SKETCH_GROUPS)
        values, counts = means.astype(np.float32), np.rint(sizes).astype(np.int64)
    return ValueCounts(values, counts, Intensities(int(voxels.size), mean, variance, low, high, sketched))


def _are_whole(voxels: NDArray[np.float32]) -> bool:
    blocks = (voxels[start : start + _BLOCK_VOXELS] for start in range(0, voxels.size, _BLOCK_VOXELS))
    return all((np.rint(block) == block).all() for block in blocks)


def _count_whole(voxels: NDArray[np.float32], low: int, high: int) -> NDArray[np.int64]:
    """How many voxels have each of the whole numbers from low to high; block by block, to stay within little memory."""
    total = np.zeros(high - low + 1, np.int64)
    step = max(_BLOCK_VOXELS, total.size)  # adding up a wide range is worth it for as many voxels only
    for start in range(0, voxels.size, step):
        offsets = voxels[start : start + step].astype(np.int64) - low
        total += np.bincount(offsets, minlength=total.size)
    return total


def mix(cases: Iterable[ValueCounts]) -> IntensityStatistics | None:
    """Statistics of the mixture in which every case with foreground weighs the same; None without any foreground.

    Holds one case at a time and the mixture. The order of the cases only changes rounding.
    """
    mixture = _Mixture()
    summaries = []
    for case in cases:
        if case.summary.voxels:
            mixture.add(case)
            summaries.append(case.summary)
    if not summaries:
        return None
    means = np.array([summary.mean for summary in summaries])
    variance = np.mean([summary.variance for summary in summaries]) + means.var()
    values, weights = mixture.result()
    low, median, high = weighted_percentiles(values, weights, (0.5, 50.0, 99.5))
    return IntensityStatistics(
        mean=float(means.mean()),
        median=median,
        std=float(variance) ** 0.5,
        min=min(summary.minimum for summary in summaries),
        max=max(summary.maximum for summary in summaries),
        percentile_00_5=low,
        percentile_99_5=high,
    )


def weighted_percentiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], percentages: Iterable[float]
) -> tuple[float, ...]:
    """Percentiles of weighted values, as defined at the top of this file, to nine significant digits.

    Args:
        values: (k,) ascending, different.
        weights: (k,) share of each value, positive.
    """
    shares = np.array([percentage / 100 for percentage in percentages])
    ends = np.cumsum(weights)
    below, above = (
        values[np.minimum(np.searchsorted(ends / ends[-1], shares + side), values.size - 1)]
        for side in (-_SAME_SHARE, _SAME_SHARE)
    )
    return tuple(float(f"{value:.9g}") for value in (below + above) / 2)  # float32 holds seven


class _Mixture:
    """Values with their summed weight over the cases added so far; each case weighs 1."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._pending = 0

    def add(self, case: ValueCounts) -> None:
        self._parts.append((case.values.astype(np.float64), case.counts / case.summary.voxels))
        self._pending += case.values.size
        if self._pending > MIXED_VALUES:
            self._merge()

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self._merge()
        return self._parts[0]

    def _merge(self) -> None:
        values, weights = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        distinct, index = np.unique(values, return_inverse=True)
        weights = np.bincount(index, weights).astype(np.float64)
        if distinct.size > MIXED_VALUES // 2:
            distinct, weights = _sketch(distinct, weights, MIXED_VALUES // 16)
        self._parts = [(distinct, weights)]
        self._pending = distinct.size


def _sketch(
    values: NDArray[np.float64], weights: NDArray[np.float64], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and weights of groups of neighbouring values; see the top of this file for the group of a rank."""
    ends = np.cumsum(weights)
    ranks = (ends - weights / 2) / ends[-1]
    group = np.minimum((np.arccos(1 - 2 * ranks) * (groups / np.pi)).astype(np.int64), groups - 1)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.add.reduceat(weights, starts)
    return np.add.reduceat(values * weights, starts) / sizes, sizes
