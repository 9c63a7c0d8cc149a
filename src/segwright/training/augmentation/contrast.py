"""Contrast about the channel's mean, within its old range (method 6.2 #5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segwright.training.augmentation.draws import fires, two_sided


@dataclass(frozen=True)
class Contrast:
    """``(x - mean) * factor + mean``, clipped to the channel's old minimum and maximum. ``factors``: one a channel."""

    factors: tuple[float, ...]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(channels, *spatial) float32 to the same shape and type."""
        result = np.empty_like(image)
        for channel, factor in enumerate(self.factors):
            mean, low, high = image[channel].mean(), image[channel].min(), image[channel].max()
            np.subtract(image[channel], mean, out=result[channel])
            result[channel] *= np.float32(factor)
            result[channel] += mean
            np.clip(result[channel], low, high, out=result[channel])
        return result


@dataclass(frozen=True)
class RandomContrast:
    """Draws :class:`Contrast`: below or above 1 with equal chance, per channel."""

    probability: float = 0.15
    factor: tuple[float, float] = (0.75, 1.25)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Contrast | None:
        if not fires(rng, self.probability):
            return None
        return Contrast(tuple(two_sided(rng, *self.factor) for _ in range(shape[0])))
