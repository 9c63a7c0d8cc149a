"""Inputs of the golden vectors, by formulas, shared by the recording (benchmarks/peer) and the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segwright.core.architecture import Architecture
from segwright.core.labels import Labels

GOLDEN = Path(__file__).parent / "golden"

CHANNELS, OUTPUTS = 2, 3
ARCHITECTURES: dict[str, Architecture] = {
    "plain_3d": Architecture(
        "plain_unet", (2, 4, 4, 4), ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1)), (2, 2, 1, 2), (2, 1, 2),
    ),
    "plain_2d": Architecture(
        "plain_unet", (4, 6, 8), ((3, 3), (3, 3), (3, 3)), ((1, 1), (2, 2), (2, 1)), (2, 2, 2), (2, 2),
    ),
    "residual_3d": Architecture(
        "residual_unet", (2, 4, 4, 4), ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1)), (1, 3, 2, 2), (1, 1, 1),
    ),
    "residual_2d": Architecture(
        "residual_unet", (4, 6, 8), ((3, 3), (3, 3), (3, 3)), ((1, 1), (2, 2), (2, 1)), (1, 3, 2), (1, 1),
    ),
}  # fmt: skip
PATCH = (8, 16, 16)
"""Of the 3-D networks; the 2-D ones see its last two edges."""

PREDICTED = {"plain": "plain_3d", "regions": "residual_3d", "2d": "plain_2d"}
"""Recorded phantoms that are predicted, and by which network."""
RUNS = {"mirrored": (1, True), "not mirrored": (1, False), "two folds": (2, True)}
"""Folds and mirroring of the predictions."""

STEEP = 50.0
"""Factor of the last layers' weights that makes gradients longer than a step allows, so that they are cut."""

LABELS: dict[str, dict[str, object]] = {
    "labels": {"labels": {"background": 0, "organ": 1, "lesion": 2}},
    "regions": {
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
    },
    "ignore": {"labels": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}},
    "regions_ignore": {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
    },
}
"""dataset.json's entries of the four label scenarios."""


def labels_of(scenario: str) -> Labels:
    return Labels.from_json(LABELS[scenario])


def second_fold(weights: np.ndarray) -> np.ndarray:
    """Weights of another fold, near those of the first; exact in float32 on every machine."""
    return (weights * np.float32(0.75) + np.float32(0.03125)).astype(np.float32)


def wave(*shape: int, step: float = 0.7) -> np.ndarray:
    """Float32 numbers between -2 and 2 that look irregular; the same on every machine to a rounding or two."""
    count = np.arange(int(np.prod(shape)), dtype=np.float64)
    return (np.sin(count * step) + np.cos(count * count * 0.001 * step)).reshape(shape).astype(np.float32)


def blocks(*shape: int, values: int, edge: int = 3) -> np.ndarray:
    """int16 label map (n, 1, *spatial) of blocks with values 0 .. values - 1."""
    grids = np.indices(shape)
    total = sum((grid // edge) * weight for grid, weight in zip(grids, (3, 0, 1, 2, 3), strict=False))
    return ((total * total + total) % (values + 1) % values).astype(np.int16)
