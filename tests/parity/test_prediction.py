"""Scores, label map and probabilities of a phantom against nnU-Net v2's with its sums in float32 (method 10)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segwright.core.geometry import Geometry
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan
from segwright.images.image import Image
from segwright.inference.cases import predict_image
from segwright.inference.export import labels_from_logits, probabilities_from_logits
from segwright.inference.predictor import Predictor
from segwright.inference.probabilities import CroppedProbabilities, on_raw_grid
from segwright.networks.weights import save_weights
from tests.parity.inputs import GOLDEN

Arrays = dict[str, np.ndarray]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def test_from_raw_image_to_label_map(numbers: dict[str, Any], arrays: Callable[..., Arrays], tmp_path: Path) -> None:
    golden, state = arrays("prediction"), arrays("prediction", "state/")
    save_weights(tmp_path / "model.safetensors", {key: torch.from_numpy(v) for key, v in state.items()}, {})
    plan = PredictPlan.from_json(json.loads((GOLDEN / "predict_plan.json").read_text()))
    raw = arrays("preprocessing", "plain/")["raw"]
    z, y, x = numbers["preprocessing"]["plain"]["spacing"]
    geometry = Geometry(raw.shape[1:], (z, y, x), (0.0, 0.0, 0.0), IDENTITY)
    predictor = Predictor(plan, [tmp_path / "model.safetensors"], PredictionSettings(), "cpu", (0, 1, 2), threads=1)
    scores, properties = predict_image(predictor, Image(raw.astype(np.float32), geometry, "int16"))
    np.testing.assert_allclose(scores[:, ::2, ::2, ::2], golden["scores"], rtol=0, atol=1e-4)
    probabilities = on_raw_grid(
        CroppedProbabilities(probabilities_from_logits(scores, properties, plan), properties, plan)
    )
    np.testing.assert_allclose(probabilities[:, ::2, ::2, ::2], golden["probabilities"], rtol=0, atol=1e-5)
    label = labels_from_logits(scores, properties, plan)
    assert label.dtype == golden["label"].dtype
    assert min(np.bincount(golden["label"].ravel(), minlength=3)) > 1000
    assert np.count_nonzero(label != golden["label"]) <= 2  # voxels where two classes are equal to the last digits
