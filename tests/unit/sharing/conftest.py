"""The results of a tiny trained pipeline: a cascade and its previous stage, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from segwright.core.architecture import Architecture
from segwright.core.files import bytes_digest, write_bytes, write_json
from segwright.core.labels import Labels
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.evaluation.metrics import Counts
from segwright.evaluation.summary import CaseResult, make_summary
from segwright.selection.best import Selection
from segwright.selection.components import Rule
from segwright.sharing.package import ConfigurationFiles, FoldFiles

LABELS = Labels((("background", 0), ("a", 1), ("b|c", 2)))


def make_plan(name: str, previous: str | None, following: tuple[str, ...] = ()) -> PredictPlan:
    architecture = Architecture("plain_unet", (4, 8), ((3,) * 3,) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
    preprocess = PreprocessPlan(
        data_name=name,
        channel_names=("MRI",),
        labels=LABELS,
        reader="SimpleITKIO",
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        spacing_mm=(2.0, 2.0, 2.0) if name == "3d_lowres" else (1.0, 1.0, 1.0),
        normalization_schemes=("ZScoreNormalization",),
        use_mask_for_norm=(False,),
        intensities=(None,),
    )
    return PredictPlan(name, preprocess, (8, 8, 8), architecture, previous_stage=previous, next_stages=following)


def _plans(names: list[str]) -> dict[str, Any]:
    statistics = dict.fromkeys(("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5"), 1.0)
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "plans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [12, 13, 14],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: {} for name in names},
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write everything a model is packaged from; returns the arguments of package_model."""

    def make(
        members: tuple[str, ...] = ("3d_cascade",),
        plugins: dict[str, str] | None = None,
        weights: Callable | None = None,
        network: str | None = None,
    ) -> dict[str, Any]:
        root = tmp_path / "results"
        chosen = {"3d_lowres": (None, ("3d_cascade",)), "3d_cascade": ("3d_lowres", ())}
        if members == ("3d_fullres",):
            chosen = {"3d_fullres": (None, ())}
        configurations = []
        for name, (previous, following) in chosen.items():
            plan = make_plan(name, previous, following)
            write_json(root / "plan" / f"{name}.predict.json", plan.to_json())
            folds = []
            for fold in ("0", "1"):
                folder = root / name / f"fold_{fold}"
                values = np.random.default_rng(int(fold)).random(3).astype(np.float32)
                content = weights(plan, int(fold)) if weights else save({"x": values})
                write_bytes(folder / "model.safetensors", content)
                record = {
                    "configuration": name,
                    "fold": fold,
                    "mirror_axes": [0, 1, 2] if fold == "0" else [1, 2],
                    "plugins": plugins or {},
                    "settings": {"network": network, "iterations": 3, "optimizer": "adamw", "learning_rate": 0.003},
                    "epochs": 2,
                    "weights_digest": bytes_digest(content),
                }
                write_json(folder / "training.json", record)
                folds.append(FoldFiles(fold, folder / "model.safetensors", folder / "training.json"))
            configurations.append(ConfigurationFiles(name, root / "plan" / f"{name}.predict.json", folds))
        write_json(root / "plan" / "plans.json", _plans(list(chosen)), sort_keys=False)
        facts = {
            "channel_names": {"0": "MRI"},
            **LABELS.to_json(),
            "numTraining": 2,
            "file_ending": ".nii.gz",
            "licence": "CC BY 4.0",
            "training": [{"image": "/home/me/patient_7.nii.gz"}],
        }
        write_json(root / "dataset.json", facts, sort_keys=False)
        best = "+".join(members)
        selection = Selection(best, members, "It is the only candidate.", ("0", "1"), 5, {best: 0.8}, 2)
        write_json(root / "selection.json", selection.to_json())
        write_json(root / "postprocessing.json", {"rules": [Rule((1,)).to_json()]})
        counts = {1: Counts(8, 2, 2, 88), 2: Counts(0, 0, 0, 100)}
        cases = [CaseResult(name, counts, f"labelsTr/{name}", f"../{name}") for name in ("patient_7", "patient_8")]
        write_json(root / "summary.json", make_summary(cases, LABELS).to_json())
        return {
            "plans": root / "plan" / "plans.json",
            "dataset_json": root / "dataset.json",
            "configurations": configurations,
            "selection": root / "selection.json",
            "postprocessing": root / "postprocessing.json",
            "prediction": PredictionSettings(mirroring=False, precision="fp32"),
            "summaries": {best: root / "summary.json"},
        }

    return make
