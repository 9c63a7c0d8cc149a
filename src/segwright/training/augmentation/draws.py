"""Draws that several transforms share."""

from __future__ import annotations

import numpy as np


def two_sided(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor below or above 1 with equal chance: U(low, 1) or U(1, high) (method 6.2, below the table)."""
    if low < 1 and rng.random() < 0.5:
        return float(rng.uniform(low, 1.0))
    return float(rng.uniform(max(low, 1.0), high))


def fires(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability; always takes exactly one draw."""
    return bool(rng.random() < probability)
