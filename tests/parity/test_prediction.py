"""Scores, label map and probabilities of phantoms against nnU-Net v2's with its sums in float32 (method 10)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan
from segwright.images.image import Image
from segwright.inference.cases import predict_image
from segwright.inference.export import labels_from_logits
from segwright.inference.predictor import Predictor
from segwright.inference.probabilities import ScoreArray, mean_probabilities, on_raw_grid
from segwright.inference.request import Computation
from segwright.inference.stage import Stage, TrainingFacts
from segwright.networks.weights import save_weights
from tests.parity.datasets import grid
from tests.parity.inputs import GOLDEN, PREDICTED, RUNS, second_fold

Arrays = dict[str, np.ndarray]
PROBABILITY_TOLERANCE = 1e-5


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("preset", PREDICTED)
def test_from_raw_image_to_label_map(
    numbers: dict[str, Any], arrays: Callable[..., Arrays], preset: str, run: str, tmp_path: Path
) -> None:
    """Plain, residual and 2-D networks, labels and regions; with and without mirroring, one fold and two."""
    golden, (folds, mirroring) = arrays("prediction", f"{preset}/{run}/"), RUNS[run]
    plan = PredictPlan.from_json(json.loads((GOLDEN / "predict_plans.json").read_text())["plans"][preset])
    raw, (z, y, x) = arrays("preprocessing", f"{preset}/")["raw"], numbers["preprocessing"][preset]["spacing"]
    image = Image(raw.astype(np.float32), grid(raw.shape[1:], (z, y, x)), "int16")
    weights = fold_files(arrays("prediction", f"{preset}/state/"), folds, tmp_path)
    stage = Stage(plan, tuple(weights), TrainingFacts(tuple(range(len(plan.patch_size)))))
    predictor = Predictor(stage, Computation(PredictionSettings(mirroring=mirroring), "cpu"), threads=1)
    scores, properties = predict_image(predictor, image)
    np.testing.assert_allclose(scores[:, ::2, ::2, ::2], golden["scores"], rtol=0, atol=1e-4)
    probabilities = on_raw_grid(mean_probabilities([ScoreArray(scores, properties, plan)]))
    tolerance = PROBABILITY_TOLERANCE
    np.testing.assert_allclose(probabilities[:, ::2, ::2, ::2], golden["probabilities"], rtol=0, atol=tolerance)
    label = labels_from_logits(scores, properties, plan)
    assert label.dtype == golden["label"].dtype and label.shape == golden["label"].shape
    sure = decided_by(probabilities, plan.labels.has_regions) > tolerance
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(label[sure], golden["label"][sure])
    if run == "mirrored":  # an answer of one label would agree with many
        assert min(np.bincount(golden["label"].ravel(), minlength=3)) > 0.02 * label.size


def fold_files(state: Arrays, folds: int, folder: Path) -> list[Path]:
    files = [folder / f"fold_{fold}.safetensors" for fold in range(folds)]
    for fold, path in enumerate(files):
        made = {key: second_fold(array) if fold else array for key, array in state.items()}
        save_weights(path, {key: torch.from_numpy(array) for key, array in made.items()}, {})
    return files


def decided_by(probabilities_czyx: np.ndarray, regions: bool) -> np.ndarray:
    """By how much each voxel is decided: ahead of the second label, or from one half in every region."""
    if regions:
        return np.abs(probabilities_czyx - 0.5).min(axis=0)
    ordered = np.sort(probabilities_czyx, axis=0)
    return ordered[-1] - ordered[-2]


def test_folds_and_mirroring_matter(arrays: Callable[..., Arrays]) -> None:
    """Else their comparison would say nothing."""
    for preset in PREDICTED:
        one, other, both = (arrays("prediction", f"{preset}/{run}/")["scores"] for run in RUNS)
        assert min(np.abs(one - other).max(), np.abs(one - both).max()) > 1e-2
