"""Slow, plain versions of what nnU-Net v2 does (method 2.1, 4), on scikit-image: what the fast code must equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.transform import resize

from segwright.core.slices import PreprocessPlan


def resize_image(volume: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    return resize(volume.astype(float), shape, order, mode="edge", anti_aliasing=False, clip=True)


def resize_label(label: np.ndarray, shape: Sequence[int], order: int, rule: str = "argmax") -> np.ndarray:
    if order == 0:
        return resize_image(label, shape, 0).astype(label.dtype)
    values = np.unique(label)
    scores = np.stack([resize_image(label == value, shape, order) for value in values])
    if rule == "threshold":
        result = np.zeros(shape, label.dtype)
        for value, score in zip(values, scores, strict=True):
            result[score >= 0.5] = value
        return result
    nearest = resize_image(label, shape, 0).astype(label.dtype)
    score_of_nearest = np.take_along_axis(scores, np.searchsorted(values, nearest)[None], axis=0)[0]
    return np.where(score_of_nearest == scores.max(axis=0), nearest, values[scores.argmax(axis=0)])


def resample(
    volume: np.ndarray, shape: Sequence[int], axis: int | None, resize_one: Any, order: int, order_z: int = 0
) -> np.ndarray:
    """Resize as a whole, or slices along ``axis`` and then map_coordinates along it, in float64."""
    if volume.shape == tuple(shape):
        return volume
    if axis is None:
        return resize_one(volume, shape, order).astype(volume.dtype)
    in_plane = [extent for other, extent in enumerate(shape) if other != axis]
    slices = [resize_one(piece, in_plane, order) for piece in np.moveaxis(volume, axis, 0)]
    buffer = np.stack(slices, axis).astype(float)
    if volume.shape[axis] == shape[axis]:
        return buffer.astype(volume.dtype)
    scale = np.divide(buffer.shape, shape)
    grid = np.meshgrid(*(np.arange(extent) for extent in shape), indexing="ij")
    coordinates = np.stack([factor * (index + 0.5) - 0.5 for factor, index in zip(scale, grid, strict=True)])
    if order_z == 0 or np.issubdtype(volume.dtype, np.floating):
        moved = ndimage.map_coordinates(buffer, coordinates, order=order_z, mode="nearest")
        return moved.astype(volume.dtype)
    result = np.zeros(shape, volume.dtype)
    for value in np.unique(buffer):
        score = ndimage.map_coordinates((buffer == value).astype(float), coordinates, order=order_z, mode="nearest")
        result[np.round(score) > 0.5] = value
    return result


def separate_axis(current: Sequence[float], new: Sequence[float]) -> int | None:
    for spacing in (current, new):
        if max(spacing) / min(spacing) > 3:
            axes = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return axes[0] if len(axes) == 1 else None
    return None


def normalize(channel: np.ndarray, scheme: str, inside: np.ndarray | None, statistics: Any) -> np.ndarray:
    channel = channel.astype(np.float64)
    if scheme == "CTNormalization":
        clipped = np.clip(channel, statistics.percentile_00_5, statistics.percentile_99_5)
        return (clipped - statistics.mean) / max(statistics.std, 1e-8)
    if scheme == "ZScoreNormalization":
        where = np.ones(channel.shape, bool) if inside is None else inside
        values = channel[where]
        channel[where] = (values - values.mean()) / max(values.std(), 1e-8)
        return channel
    if scheme == "RescaleTo01Normalization":
        channel -= channel.min()
        return channel / max(channel.max(), 1e-8)
    return channel / 255 if scheme == "RGBTo01Normalization" else channel


def preprocess(
    image_czyx: np.ndarray, label_zyx: np.ndarray, spacing: Sequence[float], plan: PreprocessPlan
) -> tuple[np.ndarray, np.ndarray]:
    """Image (float32) and label map after transposing, cropping, normalising and resampling."""
    forward = plan.transpose_forward
    image = image_czyx.transpose(0, *(axis + 1 for axis in forward))
    label = label_zyx.transpose(forward).astype(np.int16)
    spacing = [spacing[axis] for axis in forward]
    mask = ndimage.binary_fill_holes((image != 0).any(axis=0))
    found = np.argwhere(mask) if mask.any() else np.argwhere(np.ones(mask.shape))
    box = tuple(slice(low, high + 1) for low, high in zip(found.min(axis=0), found.max(axis=0), strict=True))
    image, label, mask = image[(slice(None), *box)], label[box].copy(), mask[box]
    label[(label == 0) & ~mask] = -1
    target = [spacing[0], *plan.spacing_mm] if plan.is_2d else plan.spacing_mm
    shape = [int(round(old / new * n)) for old, new, n in zip(spacing, target, label.shape, strict=True)]  # noqa: RUF046
    axis = separate_axis(spacing, target)
    channels = []
    for channel, scheme in enumerate(plan.normalization_schemes):
        inside = label >= 0 if plan.use_mask_for_norm[channel] else None
        normalized = normalize(image[channel], scheme, inside, plan.intensities[channel]).astype(np.float32)
        channels.append(resample(normalized, shape, axis, resize_image, 3))
    return np.stack(channels), resample(label, shape, axis, resize_label, 1)


def class_locations(label_zyx: np.ndarray, keys: Sequence[Any]) -> dict[Any, np.ndarray]:
    """Method 4.3: candidates label by label in C order, one RandomState(1234), 10 000 or 1 % of the voxels."""
    generator = np.random.RandomState(1234)
    result = {}
    for key in keys:
        values = key if isinstance(key, tuple) else (key,)
        candidates = np.concatenate([np.argwhere(label_zyx == value) for value in values])
        if len(candidates) == 0:
            result[key] = candidates
            continue
        count = max(min(10000, len(candidates)), int(np.ceil(0.01 * len(candidates))))
        result[key] = candidates[generator.choice(len(candidates), count, replace=False)]
    return result
