"""The plan folder: what is in it, and what changes when one setting changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.core.files import read_json
from segwright.core.plans import Plans
from segwright.core.settings import ConfigurationOverride, PlanningSettings, PreprocessingSettings
from segwright.core.slices import PredictPlan, PreprocessPlan, TrainPlan
from segwright.planned import read_configurations
from segwright.planning import make_plans, write_plan_folder

MakeInputs = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
LARGE = {"spacing": (1, 0.77, 0.77), "shape": (482, 512, 512), "num_training": 131, "channels": ("CT",)}


def write(make_inputs: MakeInputs, folder: Path, dataset: dict[str, Any], **settings: Any) -> dict[str, bytes]:
    fingerprint, facts = make_inputs(**dataset)
    plans, reasons = make_plans(fingerprint, facts, PlanningSettings(**settings), "Dataset003_Liver", "SimpleITKIO")
    write_plan_folder(folder, plans, reasons, facts, PreprocessingSettings())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folder_holds_everything(make_inputs: MakeInputs, tmp_path: Path) -> None:
    files = write(make_inputs, tmp_path, LARGE)
    names = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
    slices = {f"{name}.{kind}.json" for name in names for kind in ("preprocess", "train", "predict")}
    assert set(files) == slices | {"plans.json", "configurations.json", "reasons.md"}
    plans = Plans.from_json(read_json(tmp_path / "plans.json"))
    assert list(plans.configurations) == list(names)  # v2's order survives
    for name in names:
        preprocess = PreprocessPlan.from_json(read_json(tmp_path / f"{name}.preprocess.json"))
        train = TrainPlan.from_json(read_json(tmp_path / f"{name}.train.json"))
        predict = PredictPlan.from_json(read_json(tmp_path / f"{name}.predict.json"))
        assert train.patch_size == predict.patch_size == plans.configuration(name).patch_size
        assert predict.preprocess == preprocess and preprocess.intensities[0] is not None


def test_overview_tells_the_workflow_what_exists(make_inputs: MakeInputs, tmp_path: Path) -> None:
    write(make_inputs, tmp_path, LARGE)
    overview = read_json(tmp_path / "configurations.json")["configurations"]
    assert overview["3d_lowres"]["next_stages"] == ["3d_cascade_fullres"]
    cascade, full = overview["3d_cascade_fullres"], overview["3d_fullres"]
    assert cascade["previous_stage"] == "3d_lowres" and cascade["inherits_from"] == "3d_fullres"
    assert cascade["data_id"] == full["data_id"]  # the cascade trains on the same stored cases
    assert cascade["num_input_channels"] == 1 + 2 and full["num_input_channels"] == 1 and full["num_outputs"] == 3
    assert overview["2d"]["is_2d"] and not full["is_2d"]


def test_an_inherited_next_stage_is_no_next_stage(make_inputs: MakeInputs, tmp_path: Path) -> None:
    """Only who names it as previous stage is fed by it."""
    write(make_inputs, tmp_path, LARGE, add={"lowres_bs4": {"inherits_from": "3d_lowres", "batch_size": 4}})
    overview = read_json(tmp_path / "configurations.json")["configurations"]
    assert overview["lowres_bs4"]["next_stages"] == []
    assert read_json(tmp_path / "lowres_bs4.predict.json")["next_stages"] == []


def test_a_batch_size_changes_one_train_slice_only(make_inputs: MakeInputs, tmp_path: Path) -> None:
    """Design, decision 5: nothing is preprocessed again, and no other configuration is trained again."""
    before = write(make_inputs, tmp_path / "a", LARGE)
    overrides = {"2d": ConfigurationOverride(batch_size=7)}
    after = write(make_inputs, tmp_path / "b", LARGE, overrides=overrides)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"2d.train.json", "plans.json", "configurations.json", "reasons.md"}


def test_equal_plans_give_equal_bytes_without_time_or_path(make_inputs: MakeInputs, tmp_path: Path) -> None:
    first, second = (write(make_inputs, tmp_path / name, LARGE) for name in ("a", "b"))
    assert first == second
    assert not any(str(tmp_path).encode() in content for content in first.values())


def test_slices_of_vanished_configurations_are_removed(make_inputs: MakeInputs, tmp_path: Path) -> None:
    write(make_inputs, tmp_path, LARGE)
    assert set(write(make_inputs, tmp_path, {})) == {
        "plans.json", "configurations.json", "reasons.md", "2d.preprocess.json", "2d.train.json", "2d.predict.json",
        "3d_fullres.preprocess.json", "3d_fullres.train.json", "3d_fullres.predict.json",
    }  # fmt: skip


def test_intensities_stand_in_the_slice_only_where_they_are_used(make_inputs: MakeInputs, tmp_path: Path) -> None:
    write(make_inputs, tmp_path, {"channels": ("MRI", "CT")})
    intensities = json.loads((tmp_path / "2d.preprocess.json").read_text())["intensities"]
    assert intensities[0] is None and intensities[1]["std"] == 1.0


@pytest.mark.parametrize("planner", ["default", "resenc_l"])
def test_images_too_small_for_a_network_are_named(
    make_inputs: MakeInputs, tmp_path: Path, planner: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The plans themselves stay v2's, which plans a network of one stage."""
    write(make_inputs, tmp_path, {"shape": (6, 7, 5)}, planner=planner)
    plans = Plans.from_json(read_json(tmp_path / "plans.json"))
    assert {plans.configuration(name).architecture.n_stages for name in ("2d", "3d_fullres")} == {1}
    problem = read_configurations(tmp_path)["3d_fullres"].problem
    assert problem == (
        "Dataset003_Liver: configuration 3d_fullres cannot be trained: its patch of 6x7x5 voxels (the median image has"
        " 6x7x5 at 1 x 1 x 1 mm) is too small to be halved even once, which takes 8 voxels along two axes or 12 along"
        " one. Let images be padded to a larger patch (planning.overrides: {3d_fullres: {patch_size: [16, 16, 16]}}),"
        " plan with a finer spacing (planning.spacing_mm), or train other configurations only (training.configurations)"
    )
    assert problem in caplog.messages and len(caplog.messages) == 2  # and that of 2d


@pytest.mark.parametrize(
    ("shape", "spacing", "settings", "untrained"),
    [
        ((40, 7, 7), (1, 1, 1), {}, {"2d"}),
        ((8, 8, 8), (1, 1, 1), {}, set()),
        ((11, 7, 7), (1, 1, 1), {}, {"2d", "3d_fullres"}),
        ((6, 7, 5), (1, 1, 1), {"spacing_mm": (0.5, 0.5, 0.5)}, set()),
        (
            (6, 7, 5), (9, 3, 1),
            {"overrides": {
                "2d": ConfigurationOverride(patch_size=(16, 16)),
                "3d_fullres": ConfigurationOverride(patch_size=(16, 16, 16)),
            }},
            set(),
        ),
    ],
)  # fmt: skip
def test_what_is_said_to_help_does(
    make_inputs: MakeInputs,
    tmp_path: Path,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    settings: dict[str, Any],
    untrained: set[str],
) -> None:
    write(make_inputs, tmp_path, {"shape": shape, "spacing": spacing}, **settings)
    planned = read_configurations(tmp_path)
    assert {name for name, entry in planned.items() if entry.problem} == untrained and "3d_fullres" in planned
