"""Arrays recorded from batchgeneratorsv2 0.3.6 (torch 2.13.0, CPU) on given parameters, and how to read them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

_FILE = Path(__file__).with_name("golden_batchgeneratorsv2_0_3_6.npz")


@cache
def golden(name: str) -> np.ndarray:
    with np.load(_FILE, allow_pickle=False) as arrays:
        values: np.ndarray = arrays[name]
    return values


def within_standard_errors(values: np.ndarray, mean: float, deviation: float, errors: float = 4.0) -> bool:
    """Whether the mean of independent draws of a known distribution is where it should be."""
    return abs(float(np.mean(values)) - mean) < errors * deviation / np.sqrt(len(values))
