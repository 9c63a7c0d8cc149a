"""Fingerprints for planner tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

STATISTICS = {
    "max": 1.0, "mean": 0.0, "median": 0.0, "min": 0.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0, "std": 1.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """(spacing, shape, training cases, channels, labels, relative size) -> fingerprint and dataset.json content."""

    def make(
        spacing: Sequence[float] = (1, 1, 1),
        shape: Sequence[int] = (36, 50, 35),
        num_training: int = 260,
        channels: Sequence[str] = ("MRI",),
        labels: dict[str, Any] | None = None,
        relative_size: float = 1.0,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        fingerprint = {
            "spacings": [list(spacing)],
            "shapes_after_crop": [list(shape)],
            "median_relative_size_after_cropping": relative_size,
            "foreground_intensity_properties_per_channel": {str(c): STATISTICS for c in range(len(channels))},
        }
        facts = {
            "channel_names": {str(index): name for index, name in enumerate(channels)},
            "labels": labels or {"background": 0, "anterior": 1, "posterior": 2},
            "numTraining": num_training,
            "file_ending": ".nii.gz",
        }
        return fingerprint, facts

    return make
