"""Gamma correction of the image or of its negative (method 6.2 #7 and #8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segwright.training.augmentation.draws import fires, two_sided

SMALLEST = np.float32(1e-7)


@dataclass(frozen=True)
class Gamma:
    """Raise each channel, scaled to [0, 1], to its exponent; restore its range, then its mean and standard deviation.

    Attributes:
        exponents: one a channel.
        inverted: work on the negative image.
    """

    exponents: tuple[float, ...]
    inverted: bool

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(channels, *spatial) float32 to the same shape and type."""
        result = -image if self.inverted else image.copy()
        for values, exponent in zip(result, self.exponents, strict=True):
            mean, deviation = values.mean(), values.std(ddof=1)
            low = values.min()
            extent = values.max() - low
            values -= low
            values /= max(extent, SMALLEST)
            np.power(values, np.float32(exponent), out=values)
            values *= extent
            # The old minimum is not added back: the mean is replaced anyway.
            mean_now, deviation_now = values.mean(), values.std(ddof=1)
            values -= mean_now
            values *= deviation / max(deviation_now, SMALLEST)
            values += mean
        if self.inverted:
            np.negative(result, out=result)
        return result


@dataclass(frozen=True)
class RandomGamma:
    """Draws :class:`Gamma`: exponents below or above 1 with equal chance, per channel."""

    probability: float
    inverted: bool
    exponent: tuple[float, float] = (0.7, 1.5)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Gamma | None:
        if not fires(rng, self.probability):
            return None
        return Gamma(tuple(two_sided(rng, *self.exponent) for _ in range(shape[0])), self.inverted)
