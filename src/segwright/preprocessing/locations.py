"""Voxels to oversample foreground from: a seeded sample of each label's or region's voxels (method 4.3, 5.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.labels import LabelKey, Labels, key_values

SEED = 1234
MOST_PER_KEY = 10_000
LEAST_SHARE = 0.01
"""All voxels of a key up to 10 000 are kept, and at least 1 % of them (nnU-Net v2)."""


def location_keys(labels: Labels) -> tuple[LabelKey, ...]:
    """Labels or regions in order, and with an ignore label the key of all annotated voxels."""
    annotated: tuple[LabelKey, ...] = () if labels.ignore_label is None else (labels.annotated_key,)
    return (*labels.foreground_keys, *annotated)


def sample_locations(label_zyx: NDArray[Any], labels: Labels) -> dict[LabelKey, NDArray[np.int32]]:
    """Draw the class locations of a case, the very voxels nnU-Net v2 draws.

    Candidates of a key are the voxels of its labels in C order, one label after the other as the key lists them. One
    ``RandomState(1234)`` a case draws without replacement, key after key; a key without voxels draws nothing.

    Args:
        label_zyx: the stored label map, -1 included.

    Returns:
        int32 (k, 3) coordinates for every key, (0, 3) where it has no voxels.
    """
    label_zyx = np.ascontiguousarray(label_zyx)
    keys = location_keys(labels)
    positions = _positions_by_label(label_zyx, sorted({value for key in keys for value in key_values(key)}))
    generator = np.random.RandomState(SEED)
    locations: dict[LabelKey, NDArray[np.int32]] = {}
    for key in keys:
        candidates = [positions[value] for value in key_values(key)]
        count = sum(map(len, candidates))
        if count == 0:
            locations[key] = np.zeros((0, 3), np.int32)
            continue
        wanted = max(min(MOST_PER_KEY, count), math.ceil(count * LEAST_SHARE))
        drawn = generator.choice(count, wanted, replace=False)
        flat = _pick(candidates, drawn)
        locations[key] = np.stack(np.unravel_index(flat, label_zyx.shape), axis=1).astype(np.int32)
    return locations


def _positions_by_label(label_zyx: NDArray[Any], values: Sequence[int]) -> dict[int, NDArray[np.int64]]:
    """Flat positions (C order) of the voxels of each value."""
    flat = label_zyx.reshape(-1)
    positions = {value: np.flatnonzero(flat == value) for value in values if value <= 0}
    foreground = np.flatnonzero(flat > 0)
    found = flat[foreground]
    by_label = np.argsort(found, kind="stable")  # stable: C order within a label
    ends = np.cumsum(np.bincount(found, minlength=max([0, *values]) + 1)) if found.size else np.zeros(1, np.int64)
    for value in values:
        if value > 0:
            start, stop = (int(ends[value - 1]), int(ends[value])) if found.size else (0, 0)
            positions[value] = foreground[by_label[start:stop]]
    return positions


def _pick(blocks: Sequence[NDArray[np.int64]], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """``np.concatenate(blocks)[index]`` without the concatenation."""
    if len(blocks) == 1:
        return blocks[0][index]
    ends = np.cumsum([len(block) for block in blocks])
    block_of = np.searchsorted(ends, index, side="right")
    picked = np.empty(len(index), np.int64)
    for number, block in enumerate(blocks):
        chosen = block_of == number
        picked[chosen] = block[index[chosen] - (ends[number] - len(block))]
    return picked
