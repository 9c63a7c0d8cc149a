"""A tiny dataset of label maps on disk, and probabilities that lie on its grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from segwright.core.architecture import Architecture
from segwright.core.dataset import Dataset, Labels, load_dataset
from segwright.core.files import file_digest, write_json
from segwright.core.geometry import Geometry
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.images.readers import write_label
from segwright.inference.finished import write_manifest
from segwright.inference.probabilities import SUFFIX, write_probabilities
from segwright.preprocessing.case import CaseProperties

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


@pytest.fixture
def make_plan() -> Callable[..., PredictPlan]:
    """A predict slice without resampling; the network is never built."""

    def make(labels: Labels, configuration: str = "2d") -> PredictPlan:
        architecture = Architecture("plain_unet", (4, 8), ((3,) * 3,) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
        preprocess = PreprocessPlan(
            data_name=configuration,
            channel_names=("MRI",),
            labels=labels,
            reader=READER,
            transpose_forward=(0, 1, 2),
            transpose_backward=(0, 1, 2),
            spacing_mm=(2.0, 1.0, 1.0),
            normalization_schemes=("ZScoreNormalization",),
            use_mask_for_norm=(False,),
            intensities=(None,),
        )
        return PredictPlan(configuration, preprocess, (8, 8, 8), architecture)

    return make


@pytest.fixture
def make_probabilities(tmp_path: Path, make_plan: Callable[..., PredictPlan]) -> Callable[..., Path]:
    """Write probabilities.json and its files for one fold of one configuration; one border voxel is cropped away."""

    def make(configuration: str, fold: int, labels: Labels, arrays: Mapping[str, np.ndarray]) -> Path:
        folder = tmp_path / "results" / configuration / f"fold_{fold}"
        files = {}
        for case_id, probabilities_czyx in arrays.items():
            inner = tuple(edge - 2 for edge in probabilities_czyx.shape[1:])
            properties = CaseProperties(
                geometry=grid(probabilities_czyx.shape[1:]),
                shape_before_cropping=probabilities_czyx.shape[1:],  # type: ignore[arg-type]
                bbox=tuple((1, edge + 1) for edge in inner),  # type: ignore[arg-type]
                shape_after_cropping=inner,  # type: ignore[arg-type]
                shape=inner,  # type: ignore[arg-type]
                spacing_before_mm=(2.0, 1.0, 1.0),
                spacing_mm=(2.0, 1.0, 1.0),
            )
            cropped = np.ascontiguousarray(probabilities_czyx[:, 1:-1, 1:-1, 1:-1], np.float32)
            file = folder / "probabilities" / f"{case_id}{SUFFIX}"
            write_probabilities(file, cropped, properties, make_plan(labels, configuration), "probabilities")
            files[case_id] = {"file": file, "digest": file_digest(file)}
        write_manifest(folder / "probabilities.json", folder, files)
        return folder / "probabilities.json"

    return make
