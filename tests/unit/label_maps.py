"""Fixtures for evaluation and selection: a tiny dataset of label maps on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from segwright.core.dataset import Dataset, load_dataset
from segwright.core.files import file_digest, write_json
from segwright.core.geometry import Geometry
from segwright.images.readers import write_label
from segwright.inference.finished import write_manifest

READER = "SimpleITKIO"
ENDING = ".nii.gz"


def grid(shape_zyx: tuple[int, ...]) -> Geometry:
    return Geometry(shape_zyx, (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))  # type: ignore[arg-type]


@pytest.fixture
def write_map() -> Callable[[Path, np.ndarray], None]:
    """Write a label map with some grid."""

    def write(path: Path, label_zyx: np.ndarray) -> None:
        write_label(path, label_zyx, grid(label_zyx.shape), READER)

    return write


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a raw dataset whose labels are given arrays; images are empty files, nothing here reads them."""

    def make(
        labels: dict, references: Mapping[str, np.ndarray], regions_class_order: list[int] | None = None
    ) -> Dataset:
        folder = tmp_path / "Dataset001_Tiny"
        facts = {
            "channel_names": {"0": "MRI"},
            "labels": labels,
            "numTraining": len(references),
            "file_ending": ENDING,
        }
        if regions_class_order:
            facts["regions_class_order"] = regions_class_order
        write_json(folder / "dataset.json", facts, sort_keys=False)
        (folder / "imagesTr").mkdir()
        for case_id, reference_zyx in references.items():
            (folder / "imagesTr" / f"{case_id}_0000{ENDING}").touch()
            write_label(folder / "labelsTr" / f"{case_id}{ENDING}", reference_zyx, grid(reference_zyx.shape), READER)
        return load_dataset(folder)

    return make


@pytest.fixture
def make_fold(tmp_path: Path) -> Callable[..., Path]:
    """Write out-of-fold predictions and their validation.json."""

    def make(fold: int | str, predictions: Mapping[str, np.ndarray], configuration: str = "2d") -> Path:
        folder = tmp_path / "results" / configuration / f"fold_{fold}"
        files = {}
        for case_id, prediction_zyx in predictions.items():
            file = folder / "validation" / f"{case_id}{ENDING}"
            write_label(file, prediction_zyx, grid(prediction_zyx.shape), READER)
            files[case_id] = {"file": file, "digest": file_digest(file)}
        write_manifest(folder / "validation.json", folder, files)
        return folder / "validation.json"

    return make
