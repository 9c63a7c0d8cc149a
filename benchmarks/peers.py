"""The obvious way to do what segwright does, with the libraries everybody has installed.

Each function does the same as its counterpart in segwright, to the differences that the table of results shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from batchgenerators.augmentations.utils import resize_segmentation
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
from scipy.ndimage import map_coordinates, zoom
from skimage.transform import resize

from segwright.preprocessing.store import StoredCase


def zoom_cubic(volume_zyx: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cubic spline with half-voxel centres by scipy, clipped to the range of the input."""
    factors = [new / old for new, old in zip(shape, volume_zyx.shape, strict=True)]
    resized = zoom(volume_zyx, factors, order=3, mode="nearest", grid_mode=True)
    return np.clip(resized, volume_zyx.min(), volume_zyx.max())


def resize_cubic(volume_zyx: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The same by scikit-image."""
    return resize(volume_zyx, shape, order=3, mode="edge", anti_aliasing=False, clip=True, preserve_range=True)


def resize_slices_then_z(volume_zyx: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Each slice in 2-D, then the nearest slice."""
    slices = np.stack([resize_cubic(slice_yx, shape[1:]) for slice_yx in volume_zyx])
    if len(slices) == shape[0]:
        return slices
    centres = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(shape, slices.shape, strict=True)]
    return map_coordinates(slices, np.meshgrid(*centres, indexing="ij"), order=0, mode="nearest")


def resize_labels(label_zyx: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Each label's mask resized linearly, the largest wins."""
    return resize_segmentation(label_zyx, shape, order=1)


def argmax_of_resized(logits_czyx: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Every class resized linearly to full size in float32, then arg-max."""
    resized = np.stack(
        [resize(channel, shape, order=1, mode="edge", anti_aliasing=False, clip=True) for channel in logits_czyx]
    )
    return resized.argmax(axis=0).astype(np.uint8)


def metrics_mask_by_mask(reference_zyx: np.ndarray, prediction_zyx: np.ndarray, labels: Sequence[int]) -> list[Any]:
    """True and false positives and negatives of each label from two masks of it."""
    counts = []
    for label in labels:
        reference, prediction = reference_zyx == label, prediction_zyx == label
        tp, fp = (reference & prediction).sum(), (~reference & prediction).sum()
        fn, tn = (reference & ~prediction).sum(), (~reference & ~prediction).sum()
        counts.append((int(tp), int(fp), int(fn), int(tn)))
    return counts


def augmenter(patch: tuple[int, int, int]) -> Callable[..., dict[str, np.ndarray]]:
    """batchgenerators' transforms with the ranges and chances of segwright's default augmentation (method 6.2)."""
    angle = (-np.pi / 6, np.pi / 6)
    return Compose(
        [
            SpatialTransform(
                patch,
                patch_center_dist_from_border=None,
                do_elastic_deform=False,
                angle_x=angle,
                angle_y=angle,
                angle_z=angle,
                p_rot_per_sample=0.2,
                scale=(0.7, 1.4),
                p_scale_per_sample=0.2,
                border_mode_data="constant",
                order_data=1,
                order_seg=1,
                random_crop=False,
            ),
            GaussianNoiseTransform(p_per_sample=0.1),
            GaussianBlurTransform((0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5),
            BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15),
            ContrastAugmentationTransform(p_per_sample=0.15),
            SimulateLowResolutionTransform(
                (0.5, 1.0), per_channel=True, p_per_channel=0.5, order_downsample=0, order_upsample=1, p_per_sample=0.25
            ),
            GammaTransform((0.7, 1.5), invert_image=True, per_channel=True, retain_stats=True, p_per_sample=0.1),
            GammaTransform((0.7, 1.5), invert_image=False, per_channel=True, retain_stats=True, p_per_sample=0.3),
            MirrorTransform((0, 1, 2)),
        ]
    )


def load_window(case: StoredCase, edges: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random window of a stored case: image (c, z, y, x) and label map (1, z, y, x)."""
    label_zyx = case.label_zyx
    assert label_zyx is not None, "a stored training case"
    starts = [int(rng.integers(0, extent - edge + 1)) for extent, edge in zip(label_zyx.shape, edges, strict=True)]
    window = tuple(slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
    return np.array(case.image_czyx[(slice(None), *window)]), np.array(label_zyx[window])[None]
