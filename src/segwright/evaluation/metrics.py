"""Voxel counts of one case by one joint histogram, and the means over cases (method 11.1, 11.2).

A label map pair is read once into a small table "how many voxels have reference value r and predicted value p". The
counts of every label and region, and of what postprocessing would change, are sums over that table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.errors import DatasetError
from segwright.core.labels import LabelKey, Labels, key_values

METRICS = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")
"""The eight numbers of nnU-Net v2's summary.json."""

_CHUNK_VOXELS = 1 << 18  # small enough that the codes of a chunk stay in the processor's cache


@dataclass(frozen=True)
class Counts:
    """Voxels of one structure in one case: true/false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN where the structure is neither there nor predicted."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); NaN where the structure is neither there nor predicted."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else math.nan

    def to_json(self) -> dict[str, float]:
        """The eight numbers under v2's names."""
        return {
            "Dice": self.dice,
            "FN": self.fn,
            "FP": self.fp,
            "IoU": self.iou,
            "TN": self.tn,
            "TP": self.tp,
            "n_pred": self.tp + self.fp,
            "n_ref": self.tp + self.fn,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Counts:
        return Counts(tp=int(record["TP"]), fp=int(record["FP"]), fn=int(record["FN"]), tn=int(record["TN"]))


def joint_histogram(reference_zyx: NDArray[Any], prediction_zyx: NDArray[Any], labels: Labels) -> NDArray[np.int64]:
    """Voxels by (reference value, predicted value).

    Args:
        reference_zyx, prediction_zyx: integer arrays of one shape, any number of dimensions.

    Returns:
        int64 of shape (n + 1, n + 1): one row and column a declared value, ascending, the ignore label included; the
        last ones hold every value that is not declared.

    Raises:
        DatasetError: the shapes differ.
    """
    if reference_zyx.shape != prediction_zyx.shape:
        raise DatasetError(
            f"the reference has shape {reference_zyx.shape} and the prediction {prediction_zyx.shape};"
            " both must lie on the grid of the image"
        )
    values = labels.declared_labels
    size = len(values) + 1
    code_type = np.uint16 if size * size <= 1 << 16 else np.int64
    reference, prediction = reference_zyx.reshape(-1), prediction_zyx.reshape(-1)
    histogram = np.zeros(size * size, dtype=np.int64)
    for start in range(0, reference.size, _CHUNK_VOXELS):
        reference_part = reference[start : start + _CHUNK_VOXELS]
        prediction_part = prediction[start : start + _CHUNK_VOXELS]
        inside = np.flatnonzero((reference_part != 0) | (prediction_part != 0))
        histogram[0] += reference_part.size - len(inside)  # background in both: most of a scan
        if not len(inside):
            continue
        codes = positions(reference_part[inside], values, code_type)
        codes *= code_type(size)
        codes += positions(prediction_part[inside], values, code_type)
        histogram += np.bincount(codes, minlength=size * size)
    return histogram.reshape(size, size)


def counts_of_histogram(
    histogram: NDArray[np.int64], labels: Labels, keys: Sequence[LabelKey] | None = None
) -> dict[LabelKey, Counts]:
    """Counts of every evaluated label or region, or of ``keys``; voxels whose reference is the ignore label are out."""
    row_of = {value: row for row, value in enumerate(labels.declared_labels)}
    counted = histogram
    if labels.ignore_label is not None:
        counted = histogram.copy()
        counted[row_of[labels.ignore_label]] = 0
    total = int(counted.sum())
    of_reference, of_prediction = counted.sum(axis=1), counted.sum(axis=0)
    result: dict[LabelKey, Counts] = {}
    for key in labels.foreground_keys if keys is None else keys:
        rows = sorted({row_of[value] for value in key_values(key)})
        tp = int(counted[np.ix_(rows, rows)].sum())
        fp = int(of_prediction[rows].sum()) - tp
        fn = int(of_reference[rows].sum()) - tp
        result[key] = Counts(tp=tp, fp=fp, fn=fn, tn=total - tp - fp - fn)
    return result


def case_metrics(reference_zyx: NDArray[Any], prediction_zyx: NDArray[Any], labels: Labels) -> dict[LabelKey, Counts]:
    """Counts of every evaluated label or region of one case (method 11.1); equal to nnU-Net v2's integers.

    Raises:
        DatasetError: the shapes differ.
    """
    return counts_of_histogram(joint_histogram(reference_zyx, prediction_zyx, labels), labels)


def mean_metrics(
    cases: Iterable[Mapping[LabelKey, Counts]], keys: Sequence[LabelKey]
) -> tuple[dict[LabelKey, dict[str, float]], dict[str, float]]:
    """v2's ``mean`` and ``foreground_mean`` (method 11.2).

    ``mean``: over the cases, leaving out NaN. ``foreground_mean``: plain mean of these over the structures, so a
    structure that is NaN in every case makes it NaN.
    """
    numbers: dict[LabelKey, list[dict[str, float]]] = {key: [] for key in keys}
    for case in cases:
        for key in keys:
            numbers[key].append(case[key].to_json())
    mean = {
        key: {metric: mean_without_nan([record[metric] for record in records]) for metric in METRICS}
        for key, records in numbers.items()
    }
    foreground_mean = {
        metric: float(np.mean([mean[key][metric] for key in keys])) if keys else math.nan for metric in METRICS
    }
    return mean, foreground_mean


def positions(array: NDArray[Any], values: Sequence[int], dtype: type[np.integer[Any]] = np.int64) -> NDArray[Any]:
    """A new array of where each entry stands among ``values``, which ascend from 0; ``len(values)`` for any other.

    Without gaps an entry is its own position, which saves looking it up.
    """
    count, limit = len(values), values[-1] + 1
    outside = None
    if array.size and (array.min() < 0 or array.max() >= limit):
        outside = (array < 0) | (array >= limit)
        array = np.where(outside, 0, array)
    if count == limit:
        found = array.astype(dtype)
    else:
        table = np.full(limit, count, dtype)
        table[list(values)] = np.arange(count)
        found = table[array]
    if outside is not None:
        found[outside] = count
    return found


def mean_without_nan(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    array = np.asarray(values, dtype=np.float64)
    return math.nan if np.isnan(array).all() else float(np.nanmean(array))
