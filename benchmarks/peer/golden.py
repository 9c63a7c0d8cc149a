"""Files of golden vectors: small arrays, with the releases that made them."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
from tests.parity.inputs import GOLDEN

PACKAGES = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic-network-architectures", "torch", "numpy")
STRIDE = 2
"""Of arrays every second voxel of each axis is kept."""


def installed_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write ``GOLDEN/name.npz``; its array ``versions`` is a text."""
    versions = np.array(json.dumps(installed_versions(), sort_keys=True))
    np.savez_compressed(GOLDEN / f"{name}.npz", versions=versions, **arrays)
