"""Small datasets and plans for the preprocessing tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segwright.core.dataset import Dataset, load_dataset
from segwright.core.files import write_json
from segwright.core.labels import Labels
from segwright.core.plans import IntensityStatistics
from segwright.core.slices import PreprocessPlan

Z_SCORE = "ZScoreNormalization"


@pytest.fixture
def make_plan() -> Callable[..., PreprocessPlan]:
    def make(schemes: tuple[str, ...] = (Z_SCORE,), **changes: object) -> PreprocessPlan:
        facts: dict[str, object] = {
            "data_name": "3d_fullres",
            "channel_names": tuple(f"channel {index}" for index in range(len(schemes))),
            "labels": Labels.from_json({"labels": {"background": 0, "liver": 1, "tumour": 2}}),
            "reader": "SimpleITKIO",
            "transpose_forward": (0, 1, 2),
            "transpose_backward": (0, 1, 2),
            "spacing_mm": (1.0, 1.0, 1.0),
            "normalization_schemes": schemes,
            "use_mask_for_norm": (False,) * len(schemes),
            "intensities": tuple(
                IntensityStatistics(50.0, 40.0, 30.0, -1024.0, 900.0, -100.0, 250.0) if s == "CTNormalization" else None
                for s in schemes
            ),
        }
        return PreprocessPlan(**{**facts, **changes})  # type: ignore[arg-type]

    return make


def blobs(shape: tuple[int, int, int], labels: int, seed: int) -> np.ndarray:
    """A label map of smooth regions, as organs are."""
    z, y, x = np.meshgrid(*(np.linspace(0, 3, extent) for extent in shape), indexing="ij")
    wave = np.sin(2 * z + seed) + np.cos(3 * y - seed) * np.sin(2.5 * x + 0.3 * seed)
    edges = np.quantile(wave, np.linspace(0, 1, labels + 1)[1:-1])
    return np.digitize(wave, edges).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three cases with two labels; images zero outside a box, two spacings."""
    folder = tmp_path / "raw" / "Dataset001_Test"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        label = blobs((9, 14, 12), 3, number)
        image = label * 40.0 + np.random.default_rng(number).normal(100, 5, label.shape)
        image[:2], image[:, :, 10:] = 0, 0
        for array, path in (
            (image.astype(np.float32), folder / "imagesTr" / f"case.{number}_0000.nii.gz"),
            (label, folder / "labelsTr" / f"case.{number}.nii.gz"),
        ):
            stored = sitk.GetImageFromArray(array)
            stored.SetSpacing((1.0 + 0.2 * number, 1.1, 2.0))
            sitk.WriteImage(stored, str(path))
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "MR"},
            "labels": {"background": 0, "liver": 1, "tumour": 2},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        },
    )
    return load_dataset(folder)
