"""Label maps as channels: the previous stage's as one-hot, regions as boolean maps (method 6.2 #12 and #13)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segwright.core.labels import LabelKey, Labels, key_values


def one_hot(label: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """(*spatial) integers to (values, *spatial) float32 of 0 and 1."""
    result = np.empty((len(values), *label.shape), np.float32)
    for channel, value in enumerate(values):
        np.equal(label, value, out=result[channel])
    return result


def region_channels(label: np.ndarray, regions: Sequence[LabelKey]) -> np.ndarray:
    """(*spatial) integers to (regions, *spatial) bool: where the label is one of the region's values."""
    result = np.zeros((len(regions), *label.shape), bool)
    for channel, region in enumerate(regions):
        for value in key_values(region):
            result[channel] |= label == value
    return result


def target_regions(labels: Labels) -> tuple[LabelKey, ...] | None:
    """Channels of a region training's target: the regions and, last, the ignore label. None: plain labels."""
    if not labels.has_regions:
        return None
    ignore = labels.ignore_label
    return labels.foreground_regions if ignore is None else (*labels.foreground_regions, ignore)
