"""Plans, cases and weights small enough that a prediction takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segwright.core.architecture import Architecture
from segwright.core.dataset import Dataset, load_dataset
from segwright.core.files import write_json
from segwright.core.geometry import Geometry
from segwright.core.labels import Labels
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.images.readers import write_image, write_label
from segwright.inference.predictor import Predictor
from segwright.inference.request import Computation
from segwright.inference.stage import Stage, TrainingFacts
from segwright.inspection.batch import inspect_batch
from segwright.networks.build import build_network
from segwright.networks.weights import save_weights
from segwright.preprocessing.batch import preprocess_batch, write_index
from segwright.preprocessing.case import CaseProperties, plan_geometry

PLAIN: dict[str, Any] = {"labels": {"background": 0, "organ": 1, "tumour": 2}}
REGIONS: dict[str, Any] = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}


def preprocess_plan(labels: dict[str, Any] = PLAIN, **changes: Any) -> PreprocessPlan:
    plan = PreprocessPlan(
        data_name="3d_fullres",
        channel_names=("MRI",),
        labels=Labels.from_json(labels),
        reader="SimpleITKIO",
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        spacing_mm=(1.0, 1.0, 1.0),
        normalization_schemes=("ZScoreNormalization",),
        use_mask_for_norm=(False,),
        intensities=(None,),
    )
    return replace(plan, **changes)


def predict_plan(
    labels: dict[str, Any] = PLAIN, dimensions: int = 3, patch: Sequence[int] = (8, 8, 8), **changes: Any
) -> PredictPlan:
    architecture = Architecture(
        kind="plain_unet",
        features_per_stage=(4, 6),
        kernel_sizes=((3,) * dimensions,) * 2,
        strides=((1,) * dimensions, (2,) * dimensions),
        blocks_per_stage=(1, 1),
        convs_per_stage_decoder=(1,),
    )
    own = {key: changes.pop(key) for key in ("previous_stage", "next_stages") if key in changes}
    preprocess = preprocess_plan(labels, **changes)
    configuration = "2d" if dimensions == 2 else "3d_fullres"
    return PredictPlan(configuration, preprocess, tuple(patch), architecture, **own)


def geometry(shape: Sequence[int] = (10, 12, 11), spacing: Sequence[float] = (1.25, 0.8, 1.1)) -> Geometry:
    direction = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    return Geometry(tuple(shape), tuple(spacing), (3.0, -4.0, 5.5), direction)  # type: ignore[arg-type]


def properties_of(plan: PreprocessPlan, raw: Geometry, box: Any = None) -> CaseProperties:
    shape = [raw.shape_zyx[axis] for axis in plan.transpose_forward]
    return plan_geometry(raw, box or tuple((0, edge) for edge in shape), plan)


def write_weights(path: Path, plan: PredictPlan, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = build_network(plan.architecture, plan.num_input_channels, plan.labels.num_outputs, False)
    save_weights(path, network, {})
    return path


def predictor_of(
    plan: PredictPlan, *weights: Path, mirror_axes: Sequence[int] = (), threads: int | None = None, **settings: Any
) -> Predictor:
    stage = Stage(plan, weights, TrainingFacts(tuple(mirror_axes)))
    return Predictor(stage, Computation(PredictionSettings(**settings), "cpu"), threads)


@dataclass(frozen=True)
class Trained:
    """A raw dataset, a preprocessed store of it, and one fold's untrained weights."""

    dataset: Dataset
    plan: PredictPlan
    store: Callable[[PreprocessPlan, str], Path]
    weights: Path
    training_json: Path
    test_batch: Path


@pytest.fixture
def make_trained(tmp_path: Path) -> Callable[..., Trained]:
    """Make everything that comes before prediction, in ``tmp_path``, with two training and two test cases."""

    def make(plan: PredictPlan, mirror_axes: Sequence[int] = ()) -> Trained:
        rng = np.random.default_rng(5)
        folder = tmp_path / "Dataset001_Tiny"
        for number, (split, case_id) in enumerate([("Tr", "a"), ("Tr", "b"), ("Ts", "x"), ("Ts", "y")]):
            raw = geometry((10 + number, 12, 11))
            array = rng.normal(100, 20, raw.shape_zyx).astype(np.float32)
            (folder / f"images{split}").mkdir(parents=True, exist_ok=True)
            write_image(folder / f"images{split}" / f"{case_id}_0000.nii.gz", array, raw, "SimpleITKIO")
            if split == "Tr":
                (folder / "labelsTr").mkdir(exist_ok=True)
                label = (array > 110).astype(np.uint8) + (array > 125)
                write_label(folder / "labelsTr" / f"{case_id}.nii.gz", label, raw, "SimpleITKIO")
        facts = {"channel_names": {"0": "MRI"}, "numTraining": 2, "file_ending": ".nii.gz"}
        write_json(folder / "dataset.json", {**facts, **plan.labels.to_json()})
        dataset = load_dataset(folder)
        records = tmp_path / "inspection" / "batch_0.json"
        inspect_batch(dataset, ["a", "b"], records, records.parent)
        test_batch = tmp_path / "test" / "batch_0.json"
        inspect_batch(dataset, ["x", "y"], test_batch, test_batch.parent, test=True)

        def store(preprocess: PreprocessPlan, name: str) -> Path:
            target = tmp_path / "preprocessed" / name
            preprocess_batch(dataset, records, preprocess, target / "batch_0.json", target / "cases")
            write_index([target / "batch_0.json"], target / "index.json")
            return target / "index.json"

        training_json = tmp_path / "model" / "training.json"
        write_json(training_json, {"mirror_axes": list(mirror_axes), "settings": {"network": None}, "plugins": {}})
        weights = write_weights(tmp_path / "model" / "model.safetensors", plan)
        return Trained(dataset, plan, store, weights, training_json, test_batch)

    return make
