"""A tiny dataset of label maps on disk, and probabilities that lie on its grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from segwright.core.architecture import Architecture
from segwright.core.files import file_digest
from segwright.core.labels import Labels
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.inference.finished import PROBABILITIES_SUFFIX, write_manifest
from segwright.inference.probabilities import write_probabilities
from segwright.preprocessing.case import CaseProperties
from tests.unit.label_maps import READER, grid, make_dataset, make_fold, write_map

__all__ = ["make_dataset", "make_fold", "make_plan", "make_probabilities", "write_map"]


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
            file = folder / "probabilities" / f"{case_id}{PROBABILITIES_SUFFIX}"
            write_probabilities(file, cropped, properties, make_plan(labels, configuration), "probabilities")
            files[case_id] = {"file": file, "digest": file_digest(file)}
        write_manifest(folder / "probabilities.json", folder, files)
        return folder / "probabilities.json"

    return make
