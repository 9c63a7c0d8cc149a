"""Prediction on a GPU: where its tensors are, what it does when memory is short. With a real one, what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.logical_gpu import logical_gpu

from segwright.core.errors import ModelError
from segwright.core.settings import PredictionSettings
from segwright.inference import sliding_window
from segwright.inference.predictor import Predictor
from segwright.inference.request import Computation
from segwright.inference.stage import Stage, TrainingFacts

from .conftest import REGIONS, predict_plan, write_weights

IMAGE = np.random.default_rng(0).normal(size=(1, 9, 12, 10)).astype(np.float32)
IMAGE.setflags(write=False)  # as a stored case's memory map
FULL = "CUDA error: out of memory"


def predictor(folder: Path, device: str, plan: Any = None, folds: int = 1, **settings: Any) -> Predictor:
    plan = plan or predict_plan()
    weights = [write_weights(folder / str(seed), plan, seed) for seed in range(folds)]
    stage = Stage(plan, tuple(weights), TrainingFacts((0, 1)))
    return Predictor(stage, Computation(PredictionSettings(**settings), device), threads=1)


@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        (predict_plan(), {}),
        (predict_plan(), {"average": "probabilities", "gaussian": False}),
        (predict_plan(REGIONS, previous_stage="3d_lowres"), {"average": "probabilities", "precision": "bf16"}),
        (predict_plan(dimensions=2, patch=(8, 8), spacing_mm=(1.0, 1.0)), {"precision": "fp32"}),
        (predict_plan(patch=(16, 16, 16)), {}),
    ],
    ids=["3d", "softmax", "regions cascade", "2d", "one tile"],
)
def test_every_tensor_is_on_the_gpu_and_scores_are_float32(
    plan: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = np.ones(IMAGE.shape[1:], np.uint8) if plan.previous_stage else None
    expected = predictor(tmp_path, "cpu", plan, 2, **{**settings, "precision": "fp32"}).logits(IMAGE, previous)
    with logical_gpu(monkeypatch) as gpu:
        found = predictor(tmp_path, "cuda", plan, 2, **settings).logits(IMAGE, previous)
    assert found.dtype == np.float32
    tolerance = {"fp32": 1e-5, "bf16": 3e-2}.get(settings.get("precision", "fp16"), 5e-3)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert gpu.pinned > 0
    assert "aten::instance_norm" in gpu.operations
    assert not any("group_norm" in name for name in gpu.operations)  # the CPU's way to instance norm


def test_sums_that_do_not_fit_are_made_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = sliding_window.torch.zeros

    def zeros(shape: Any, **options: Any) -> torch.Tensor:
        if options["device"].type == "cuda":
            raise RuntimeError(FULL)
        return real(shape, **options)

    with logical_gpu(monkeypatch), caplog.at_level("INFO"):
        ready = predictor(tmp_path, "cuda")
        roomy = ready.logits(IMAGE)
        monkeypatch.setattr(sliding_window.torch, "zeros", zeros)
        np.testing.assert_allclose(ready.logits(IMAGE), roomy, atol=1e-6)
    assert "they are summed on the CPU" in caplog.text


def test_a_full_gpu_is_explained_and_other_errors_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [FULL]

    def fail(*_: Any) -> Any:
        raise RuntimeError(words[0])

    with logical_gpu(monkeypatch):
        ready = predictor(tmp_path, "cuda")
        monkeypatch.setattr(sliding_window, "_accumulate", fail)
        with pytest.raises(
            ModelError, match=rf"cuda: too little memory for one tile of \(8, 8, 8\).*\({FULL}\).*jobs_per_gpu"
        ):
            ready.logits(IMAGE)
        words[0] = "CUDA error: device-side assert triggered"
        with pytest.raises(RuntimeError, match="device-side assert"):
            ready.logits(IMAGE)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")


@needs_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2), ("bf16", 1e-1)])
def test_a_real_gpu_agrees_with_the_cpu(precision: str, tolerance: float, tmp_path: Path) -> None:
    expected = predictor(tmp_path, "cpu", folds=2, precision="fp32").logits(IMAGE)
    found = predictor(tmp_path, "cuda", folds=2, precision=precision).logits(IMAGE)
    np.testing.assert_allclose(found, expected, atol=tolerance)
