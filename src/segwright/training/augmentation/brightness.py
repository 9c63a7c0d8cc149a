"""Multiplicative brightness (method 6.2 #4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segwright.training.augmentation.draws import fires, two_sided


@dataclass(frozen=True)
class Brightness:
    """Multiply each channel by its factor. ``factors``: one a channel."""

    factors: tuple[float, ...]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(channels, *spatial) float32 to the same shape and type."""
        return image * np.asarray(self.factors, np.float32).reshape(-1, *(1,) * (image.ndim - 1))


@dataclass(frozen=True)
class RandomBrightness:
    """Draws :class:`Brightness`: below or above 1 with equal chance, per channel."""

    probability: float = 0.15
    factor: tuple[float, float] = (0.75, 1.25)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Brightness | None:
        if not fires(rng, self.probability):
            return None
        return Brightness(tuple(two_sided(rng, *self.factor) for _ in range(shape[0])))
