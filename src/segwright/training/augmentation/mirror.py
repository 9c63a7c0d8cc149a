"""Mirroring (method 6.2 #9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segwright.training.augmentation.draws import fires


@dataclass(frozen=True)
class Mirror:
    """Flip spatial axes (0 = first axis after the channels). Returns views."""

    axes: tuple[int, ...]

    def __call__(self, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image (channels, *spatial) and labels (maps, *spatial), flipped alike."""
        if not self.axes:
            return image, labels
        axes = tuple(axis + 1 for axis in self.axes)
        return np.flip(image, axes), np.flip(labels, axes)


@dataclass(frozen=True)
class RandomMirror:
    """Draws :class:`Mirror`: each allowed axis with the same chance."""

    allowed_axes: tuple[int, ...]
    axis_probability: float = 0.5

    def draw(self, rng: np.random.Generator) -> Mirror:
        return Mirror(tuple(axis for axis in self.allowed_axes if fires(rng, self.axis_probability)))
