"""nnU-Net v2's side of the functions that are measured, on arrays. Each maker gives a function of no arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def resample(
    file: str, shape: Sequence[int], current: Sequence[float], target: Sequence[float], is_label: bool
) -> Callable[[], np.ndarray]:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    array = np.load(file)[None]
    order = 1 if is_label else 3
    return lambda: resample_data_or_seg_to_shape(
        array, shape, current, target, is_seg=is_label, order=order, order_z=0, force_separate_z=None
    )[0]
