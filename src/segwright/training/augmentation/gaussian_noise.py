"""Additive Gaussian noise (method 6.2 #2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segwright.training.augmentation.draws import fires


@dataclass(frozen=True)
class GaussianNoise:
    """Add independent normal noise to every voxel of every channel.

    Attributes:
        sigma: standard deviation, shared by all channels.
        seed: what the noise is drawn from; equal seeds give equal noise.
    """

    sigma: float
    seed: int

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(channels, *spatial) float32 to the same shape and type."""
        noise = np.random.Generator(np.random.Philox(self.seed)).standard_normal(image.shape, np.float32)
        noise *= np.float32(self.sigma)
        noise += image
        return noise


@dataclass(frozen=True)
class RandomGaussianNoise:
    """Draws :class:`GaussianNoise`. v2 calls the range "variance" but uses it as standard deviation; so does this."""

    probability: float = 0.1
    sigma: tuple[float, float] = (0.0, 0.1)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> GaussianNoise | None:
        if not fires(rng, self.probability):
            return None
        return GaussianNoise(float(rng.uniform(*self.sigma)), int(rng.integers(2**63)))
