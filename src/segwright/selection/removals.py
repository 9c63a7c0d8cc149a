"""What postprocessing rules would change in one case, without writing it anew: tables of counts, and voxels removed.

Of each case only the box around its predicted foreground is kept, compressed, with its table of (reference, predicted)
counts. A rule removes some voxels: these move from their column of the table to that of the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from zlib_ng import zlib_ng

from segwright.core.labels import Labels
from segwright.core.recorded import RecordedFile
from segwright.evaluation.metrics import joint_histogram, positions
from segwright.evaluation.summary import read_pair
from segwright.selection.components import Box, Rule, bounding_box, removed_voxels

Histogram = NDArray[np.int64]
"""Voxels by (reference value, predicted value)."""


@dataclass(frozen=True)
class CaseState:
    """A case within the box around its predicted foreground, compressed: label maps shrink fifty-fold.

    Attributes:
        values: the declared label values, ascending.
    """

    shape_zyx: tuple[int, ...]
    dtype: str
    prediction: bytes
    reference: bytes
    values: tuple[int, ...]


@dataclass(frozen=True)
class Removed:
    """Voxels a rule removes from one case: how many of each (reference, predicted) pair."""

    codes: NDArray[np.int64]
    counts: NDArray[np.int64]


def load_case(task: tuple[str, RecordedFile, Path, Labels, str]) -> tuple[CaseState, Histogram]:
    """Read one case: (case id, prediction, reference file, labels, reader).

    Raises:
        DatasetError: a file cannot be read, or prediction and reference lie on different grids.
        DamagedFileError: the prediction is missing or was altered.
    """
    case_id, entry, reference_file, labels, reader = task
    reference_zyx, prediction_zyx = read_pair(case_id, reference_file, entry.verify(), reader)
    histogram = joint_histogram(reference_zyx, prediction_zyx, labels)
    box = bounding_box(prediction_zyx != 0) or (slice(0, 0),) * prediction_zyx.ndim
    values = labels.declared_labels
    limit = values[-1] + 1
    dtype = np.dtype(np.uint8 if limit <= 255 else np.uint16)
    cropped = [_compact(array[box], limit, dtype) for array in (prediction_zyx, reference_zyx)]
    packed = [zlib_ng.compress(array.tobytes(), 1) for array in cropped]
    return CaseState(cropped[0].shape, dtype.str, packed[0], packed[1], values), histogram


def try_rules(task: tuple[CaseState, tuple[Rule, ...], tuple[Rule, ...]]) -> tuple[CaseState, list[Removed]]:
    """Apply the accepted rules, then see what each candidate would remove from that state."""
    state, accepted, candidates = task
    prediction_zyx = _unpack(state.prediction, state)
    reference_zyx = _unpack(state.reference, state)
    for rule in accepted:
        box, removed = removed_voxels(prediction_zyx, rule)
        if box is not None:
            prediction_zyx[box][removed] = 0
    if accepted:
        packed = zlib_ng.compress(prediction_zyx.tobytes(), 1)
        state = CaseState(state.shape_zyx, state.dtype, packed, state.reference, state.values)
    boxes = _boxes_of_values(prediction_zyx, candidates)
    removals: list[Removed] = []
    for rule in candidates:
        box, removed = removed_voxels(prediction_zyx, rule, boxes.get(rule))
        if box is None:
            removals.append(Removed(np.zeros(0, np.int64), np.zeros(0, np.int64)))
            continue
        rows, columns = (positions(array[box][removed], state.values) for array in (reference_zyx, prediction_zyx))
        pairs = rows * (len(state.values) + 1) + columns
        removals.append(Removed(*np.unique(pairs, return_counts=True)))
    return state, removals


def after_removal(histogram: Histogram, removed: Removed) -> Histogram:
    """The table after the removed voxels became background."""
    if removed.codes.size == 0:
        return histogram
    size = len(histogram)
    changed = histogram.copy()
    rows, columns = np.divmod(removed.codes, size)
    np.subtract.at(changed, (rows, columns), removed.counts)
    np.add.at(changed, (rows, np.zeros_like(rows)), removed.counts)
    return changed


def _compact(array_zyx: NDArray[Any], limit: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array in a small type; values below 0 or above ``limit``, none of them declared, become ``limit``."""
    beyond = (array_zyx < 0) | (array_zyx >= limit)
    return np.where(beyond, dtype.type(limit), array_zyx).astype(dtype)


def _boxes_of_values(prediction_zyx: NDArray[Any], candidates: Sequence[Rule]) -> dict[Rule, Box]:
    """Boxes of many single labels in one pass; without it each label would search the whole array."""
    if len(candidates) < 4 or prediction_zyx.size == 0:
        return {}
    found = ndimage.find_objects(prediction_zyx)
    empty = (slice(0, 0),) * prediction_zyx.ndim
    boxes: dict[Rule, Box] = {}
    for rule in candidates:
        (value,) = rule.values
        boxes[rule] = (found[value - 1] if value <= len(found) else None) or empty
    return boxes


def _unpack(packed: bytes, state: CaseState) -> NDArray[Any]:
    return np.frombuffer(zlib_ng.decompress(packed), dtype=state.dtype).reshape(state.shape_zyx).copy()
