"""Segwright's transforms with parameters that are given; the peer's are in benchmarks/peer/peer_twins.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segwright.core.labels import LabelKey
from segwright.training.augmentation.binary_operator import OPERATORS, BinaryOperator
from segwright.training.augmentation.brightness import Brightness
from segwright.training.augmentation.component_removal import ComponentRemoval
from segwright.training.augmentation.contrast import Contrast
from segwright.training.augmentation.deep_supervision import supervision_shapes, supervision_targets
from segwright.training.augmentation.gamma import Gamma
from segwright.training.augmentation.gaussian_blur import GaussianBlur
from segwright.training.augmentation.label_channels import one_hot, region_channels
from segwright.training.augmentation.low_resolution import LowResolution
from segwright.training.augmentation.mask import mask_outside, outside_to_background
from segwright.training.augmentation.mirror import Mirror
from segwright.training.augmentation.spatial import Spatial

Arrays = tuple[np.ndarray, ...]
Twin = Callable[[np.ndarray, np.ndarray], Arrays]

GOLDEN_SHAPE = (6, 12, 9)
FACTORS = (0.8, 1.3)
SIGMAS = ((0.9, 0.62, 0.51), (0.55, 0.8, 0.97))
SCALES = {"0.6": (0.6,) * 3, "0.77": (0.77,) * 3, "0.95": (0.95,) * 3, "in plane": (1.0, 0.7, 0.7)}
REGIONS: tuple[LabelKey, ...] = ((1, 2), (2,), 3)
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 1, 1))
RADII = (1.3, 2.6, 4.0)
OPERATORS_2D = ((2, OPERATORS[0], 1.7), (0, OPERATORS[3], 2.7))
PICKS = ((1, 0.0), (0, 0.7), (2, 0.99))
SPATIAL: dict[str, tuple[tuple[float, ...], float, bool]] = {
    "turned": ((0.3, -0.2, 0.5), 1.0, False),
    "zoomed out beyond the window": ((), 1.37, False),
    "zoomed in": ((0.1, 0.0, -0.4), 0.72, False),
    "in plane": ((2.2,), 1.1, True),
    "copy": ((), 1.0, False),
    "2-D": ((-1.1,), 0.83, False),
}
"""Angles, scale, in the plane of the last two axes only."""


def scene(shape: tuple[int, int, int], values: int = 4) -> Arrays:
    """Two smooth channels with a zero border at one side, and two label maps, -1 in that border."""
    z, y, x = (
        np.arange(edge).reshape([-1 if axis == place else 1 for place in range(3)]) for axis, edge in enumerate(shape)
    )
    first = np.sin(0.9 * z + 0.4 * y) + np.cos(0.7 * y - 0.5 * x) + 0.05 * x * y
    second = np.cos(0.8 * z - 0.3 * x) * 2 + np.sin(1.3 * y + 0.1 * z * x)
    body = 2 * z + x > 2
    image = np.stack([np.where(body, channel, 0) for channel in (first, second)]).astype(np.float32)
    label = np.digitize(np.sin(0.5 * z + 0.35 * y) + np.cos(0.45 * x - 0.2 * y), np.linspace(0.1, 1.7, values - 1))
    label = np.where(body, label, -1).astype(np.int16)
    return image, np.stack([label, np.roll(label, 1, 2)])


def last_plane(arrays: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(arrays[:, -1])


def patch_of(shape: tuple[int, ...], in_plane: bool = False) -> tuple[int, ...]:
    """What spatial twins cut from a window."""
    return tuple(edge if in_plane and axis == 0 else edge * 2 // 3 for axis, edge in enumerate(shape))


def spatial_twin(name: str) -> Twin:
    angles, scale, in_plane = SPATIAL[name]

    def twin(image: np.ndarray, labels: np.ndarray) -> Arrays:
        if name == "2-D":
            image, labels = last_plane(image), last_plane(labels)
        return Spatial(patch_of(image.shape[1:], in_plane), angles, scale, in_plane)(image, labels)

    return twin


def cascade_channels(labels: np.ndarray) -> np.ndarray:
    return one_hot(labels[1], (1, 2, 3))


def operators_twin(operators: BinaryOperator) -> Twin:
    return lambda _, labels: (operators(cascade_channels(labels)),)


def twins() -> dict[str, Twin]:
    """Every transform, as a function of (image, label maps)."""
    found: dict[str, Twin] = {
        "blur": lambda image, _: (GaussianBlur(SIGMAS)(image),),
        "blur 2-D": lambda image, _: (GaussianBlur(tuple(s[1:] for s in SIGMAS))(last_plane(image)),),
        "brightness": lambda image, _: (Brightness(FACTORS)(image),),
        "contrast": lambda image, _: (Contrast(FACTORS)(image),),
        "gamma": lambda image, _: (Gamma(FACTORS, inverted=False)(image),),
        "gamma inverted": lambda image, _: (Gamma(FACTORS, inverted=True)(image),),
        "mirror": lambda image, labels: Mirror((0, 2))(image, labels),
        "mirror 2-D": lambda image, labels: Mirror((1,))(last_plane(image), last_plane(labels)),
        "mask": lambda image, labels: (mask_outside(image, labels[0], (True, False)),),
        "label -1": lambda _, labels: (outside_to_background(labels),),
        "one-hot": lambda _, labels: (cascade_channels(labels),),
        "regions": lambda _, labels: (region_channels(labels[0], REGIONS),),
        "targets of deep supervision": lambda _, labels: tuple(
            supervision_targets(labels[:1], supervision_shapes(labels.shape[1:], STRIDES, True))
        ),
        "component removal": lambda _, labels: (ComponentRemoval(PICKS)(cascade_channels(labels)),),
    }
    for name, scales in SCALES.items():
        found[f"low resolution {name}"] = lambda image, _, scales=scales: (LowResolution((scales, None))(image),)
    found["low resolution 2-D"] = lambda image, _: (LowResolution(((0.6,) * 2, (0.8,) * 2))(last_plane(image)),)
    for name in SPATIAL:
        found[f"spatial {name}"] = spatial_twin(name)
    for radius in RADII:
        for operator in OPERATORS:
            steps = ((1, operator, radius), (0, operator, radius))
            found[f"{operator} {radius}"] = lambda _, labels, steps=steps: (
                BinaryOperator(steps)(cascade_channels(labels)),
            )
    disk = ((2, OPERATORS[0], 1.7), (0, OPERATORS[3], 2.7))
    found["binary operators 2-D"] = lambda _, labels: (BinaryOperator(disk)(last_plane(cascade_channels(labels))),)
    return found
