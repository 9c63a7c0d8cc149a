"""A model nnU-Net v2 trained and exported, imported here, predicts what nnU-Net predicts with it (float32 sums)."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.files import read_json
from segwright.images.readers import read_label
from segwright.sharing.model import open_model
from segwright.sharing.nnunet_v2.import_model import import_model
from segwright.sharing.use import predict_with_model
from tests.parity.inputs import GOLDEN
from tests.unit.sharing.nnunet_v2.made import old_style

FOLDER = GOLDEN / "models"
ARCHIVE = FOLDER / "results.zip"
FOREGROUND_MIN = 100  # voxels of each label: an empty answer would agree with everything


@pytest.mark.parametrize("choice", ["3d_cascade_fullres", "2d+3d_fullres", "selected"])
def test_imported_models_predict_as_nnunet_does(choice: str, tmp_path: Path) -> None:
    members = None if choice == "selected" else choice.split("+")
    with open_model(import_model(ARCHIVE, tmp_path / "model", configurations=members)) as model:
        chosen = model if choice == "selected" else replace(model, rules=())
        files = predict_with_model(chosen, FOLDER, tmp_path / "segmentations", workers=0)
        (label,) = (read_label(path, "SimpleITKIO").array_zyx for path in files.values())
    with np.load(FOLDER / "expected.npz") as expected:
        theirs = expected[choice]
    assert label.dtype == theirs.dtype and label.shape == theirs.shape
    assert min(np.bincount(theirs.ravel(), minlength=2)[:2]) > FOREGROUND_MIN
    assert np.count_nonzero(label != theirs) <= 2  # voxels where two labels are equal to the last digits


def test_the_selection_and_its_scores_are_nnunet_s(tmp_path: Path) -> None:
    with open_model(import_model(ARCHIVE, tmp_path / "model")) as model, zipfile.ZipFile(ARCHIVE) as archive:
        name = next(name for name in archive.namelist() if name.endswith("inference_information.json"))
        told: dict[str, Any] = json.loads(archive.read(name))
        best = told["best_model_or_ensemble"]
        assert list(model.members) == [entry["configuration"] for entry in best["selected_model_or_models"]]
        metrics, selection = read_json(model.folder / "metrics.json"), read_json(model.folder / "selection.json")
        scored = metrics["candidates"][metrics["best"]]["foreground_mean"]["Dice"]
        assert scored == best["result_on_crossval_pre_pp"] == selection["scores"][metrics["best"]]
        assert selection["folds"] == ["0", "1"] and len(selection["scores"]) == len(told["all_results"])


def test_plans_of_old_releases_give_the_same_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "new")  # our own file
    new = import_model(tmp_path / "new", tmp_path / "from_new", configurations=["3d_cascade_fullres"])
    for path in (tmp_path / "new").rglob("plans.json"):
        path.write_text(json.dumps(old_style(json.loads(path.read_text()))))
    old = import_model(tmp_path / "new", tmp_path / "from_old", configurations=["3d_cascade_fullres"])
    for name in ("3d_lowres", "3d_cascade_fullres"):
        plans = [read_json(model / name / "predict.json") for model in (new, old)]
        for plan in plans:
            plan["preprocess"].pop("data_name")
        assert plans[0] == plans[1]
        weights = [(model / name / "fold_0" / "model.safetensors").read_bytes() for model in (new, old)]
        assert weights[0] == weights[1]
