"""The five normalisation schemes (method 4.4), by their name in the plans. One channel at a time, in place.

Statistics are accumulated in float64, plane by plane: nnU-Net's float32 sums over a cropped (strided) image can be off
by a few 1e-5 of the mean, and need a copy of the image for the standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segwright.core.errors import DatasetError, PlansError
from segwright.core.plans import IntensityStatistics

EPSILON = 1e-8
"""Smallest divisor: a constant image becomes zeros instead of NaN (nnU-Net v2)."""

Channel = NDArray[np.float32]
Mask = NDArray[np.bool_]


def normalize_channel(
    channel_zyx: Channel, scheme: str, mask_zyx: Mask | None = None, statistics: IntensityStatistics | None = None
) -> None:
    """Normalise one channel in place.

    Args:
        channel_zyx: float32, cropped; changed in place.
        scheme: class name in the plans, e.g. ``ZScoreNormalization``.
        mask_zyx: voxels that count and change (inside the non-zero mask), or None for all. Only z-score looks at it.
        statistics: foreground intensities of this channel over the dataset; needed by ``CTNormalization``.

    Raises:
        PlansError: no such scheme, or CT without statistics.
        DatasetError: an 8-bit scheme met values outside 0 to 255.
    """
    if scheme not in SCHEMES:
        raise PlansError(f"plans: there is no normalisation `{scheme}` (known: {', '.join(SCHEMES)})")
    SCHEMES[scheme](channel_zyx, mask_zyx, statistics)


def _ct(channel_zyx: Channel, mask_zyx: Mask | None, statistics: IntensityStatistics | None) -> None:
    if statistics is None:
        raise PlansError("plans: CTNormalization needs foreground_intensity_properties_per_channel of its channel")
    np.clip(channel_zyx, statistics.percentile_00_5, statistics.percentile_99_5, out=channel_zyx)
    channel_zyx -= np.float32(statistics.mean)
    channel_zyx /= np.float32(max(statistics.std, EPSILON))


def _z_score(channel_zyx: Channel, mask_zyx: Mask | None, statistics: IntensityStatistics | None) -> None:
    mean, std = mean_and_std(channel_zyx, mask_zyx)
    where = True if mask_zyx is None else mask_zyx
    np.subtract(channel_zyx, np.float32(mean), out=channel_zyx, where=where)
    np.divide(channel_zyx, np.float32(max(std, EPSILON)), out=channel_zyx, where=where)


def _rescale_to_01(channel_zyx: Channel, mask_zyx: Mask | None, statistics: IntensityStatistics | None) -> None:
    channel_zyx -= channel_zyx.min()
    channel_zyx /= max(channel_zyx.max(), np.float32(EPSILON))


def _rgb_to_01(channel_zyx: Channel, mask_zyx: Mask | None, statistics: IntensityStatistics | None) -> None:
    low, high = float(channel_zyx.min()), float(channel_zyx.max())
    if low < 0 or high > 255:
        raise DatasetError(
            f"channel with values from {low:g} to {high:g}: rgb_to_0_1 needs 8-bit values, 0 to 255; correct the image,"
            " or choose another normalisation by `channel_names` in dataset.json"
        )
    channel_zyx /= np.float32(255)


def _keep(channel_zyx: Channel, mask_zyx: Mask | None, statistics: IntensityStatistics | None) -> None:
    pass


SCHEMES: dict[str, Callable[[Channel, Mask | None, IntensityStatistics | None], None]] = {
    "CTNormalization": _ct,
    "ZScoreNormalization": _z_score,
    "RescaleTo01Normalization": _rescale_to_01,
    "RGBTo01Normalization": _rgb_to_01,
    "NoNormalization": _keep,
}


def mean_and_std(channel_zyx: Channel, mask_zyx: Mask | None = None) -> tuple[float, float]:
    """Mean and population standard deviation of the voxels in the mask; (0, 1) if there are none."""
    planes = range(len(channel_zyx))
    count = channel_zyx.size if mask_zyx is None else int(np.count_nonzero(mask_zyx))
    if count == 0:
        return 0.0, 1.0

    def voxels(z: int) -> NDArray[np.float32]:
        return channel_zyx[z] if mask_zyx is None else channel_zyx[z][mask_zyx[z]]

    mean = float(sum(np.sum(voxels(z), dtype=np.float64) for z in planes)) / count
    variance = float(sum(np.sum(np.square(voxels(z) - np.float64(mean))) for z in planes)) / count
    return mean, float(np.sqrt(variance))
