"""Zero outside the body, and the end of label -1 (method 6.2 #10 and #11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mask_outside(image: np.ndarray, label: np.ndarray, use_mask: Sequence[bool]) -> np.ndarray:
    """Channels normalised within the non-zero mask are 0 where ``label`` (*spatial) is negative; a new array.

    ``image`` is (channels, *spatial), ``use_mask`` has one entry a channel.
    """
    if not any(use_mask):
        return image
    outside = label < 0
    result = image.copy()
    for channel, used in enumerate(use_mask):
        if used:
            result[channel][outside] = 0
    return result


def outside_to_background(labels: np.ndarray) -> np.ndarray:
    """Label -1 (outside the body or the image) becomes background 0; any shape, a new array."""
    return np.maximum(labels, 0) if labels.size and labels.min() == -1 else labels
