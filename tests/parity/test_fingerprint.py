"""Fingerprints of phantoms against nnU-Net v2's: grids exactly, statistics within its sampling error (method 2.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.inspection.dataset import inspect_dataset
from tests.parity.datasets import image_dataset

Arrays = dict[str, np.ndarray]
SAMPLING_ERRORS = 3.0
ROUNDING = 1e-6
"""Least error, of the standard deviation: where all of v2's seeds draw one voxel, means of them are rounded."""


@pytest.mark.parametrize("preset", ["plain", "regions", "ignore", "regions_ignore", "ct", "anisotropic", "2d"])
def test_fingerprint(numbers: dict[str, Any], arrays: Callable[..., Arrays], preset: str, tmp_path: Path) -> None:
    recorded, golden = numbers["fingerprint"][preset], arrays("preprocessing", f"{preset}/")
    image_dataset(tmp_path / "raw", numbers["preprocessing"][preset], golden["raw"], golden["seg"])
    found = json.loads(inspect_dataset(tmp_path / "raw", tmp_path / "inspected", batches=1).read_text())
    assert found["shapes_after_crop"] == recorded["shapes"] and len(recorded["shapes"]) == 2
    assert found["spacings"] == recorded["spacings"]
    assert found["median_relative_size_after_cropping"] == pytest.approx(recorded["relative"], abs=1e-12)
    channels = found["foreground_intensity_properties_per_channel"]
    assert list(channels) == [str(number) for number in range(len(golden["raw"]))]
    for mine, theirs in zip(channels.values(), recorded["channels"], strict=True):
        assert set(theirs) == set(mine) - {"min", "max"}
        for name, (value, error) in theirs.items():
            assert abs(mine[name] - value) <= max(SAMPLING_ERRORS * error, ROUNDING * mine["std"]), name
