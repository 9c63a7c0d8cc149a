"""The four label scenarios, 2-D images and the cascade, from raw images to report, model and test segmentations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from segwright.phantom import make_phantom
from tests.workflow.runner import Project

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(900)]

NAME = "Dataset900_Phantom"
Make = Callable[..., Project]


def results(project: Project, pipeline: str = "default") -> Path:
    return project.folder / "results" / NAME / pipeline


def assert_complete(project: Project, allowed_values: set[int]) -> dict[str, Any]:
    """Report, model and every test segmentation exist; segmentations lie on the grids of their images."""
    root = results(project)
    raw = Path(project.config["datasets"][NAME]["path"])
    facts = json.loads((raw / "dataset.json").read_text())
    ending = facts["file_ending"]
    report = (root / "report.html").read_text()
    assert "Dataset900_Phantom" in report and "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", report)
    manifest = json.loads((root / "final" / "manifest.json").read_text())
    cases = sorted({path.name[: -len(ending) - 5] for path in (raw / "imagesTs").glob(f"*{ending}")})
    assert sorted(manifest["cases"]) == cases and cases
    for case in cases:
        image = sitk.ReadImage(str(raw / "imagesTs" / f"{case}_0000{ending}"))
        segmentation = sitk.ReadImage(str(root / "final" / f"{case}{ending}"))
        assert segmentation.GetSize() == image.GetSize()
        np.testing.assert_allclose(segmentation.GetSpacing(), image.GetSpacing())
        np.testing.assert_allclose(segmentation.GetOrigin(), image.GetOrigin())
        assert set(np.unique(sitk.GetArrayFromImage(segmentation))) <= allowed_values
    model = json.loads((root / "model" / "model.json").read_text())
    assert (root / "model.zip").stat().st_size > 1000
    return model


def one_configuration(name: str) -> dict[str, Any]:
    return {"training": {"configurations": [name]}}


def test_plain_labels(phantom_project: Make) -> None:
    project = phantom_project("plain", **one_configuration("3d_fullres"))
    project.must_run()
    assert_complete(project, {0, 1, 2})
    summary = project.json(f"results/{NAME}/default/3d_fullres/crossval/summary.json")
    assert set(summary["mean"]) == {"1", "2"}
    assert len(summary["metric_per_case"]) == 4


def test_regions(phantom_project: Make) -> None:
    project = phantom_project("regions", **one_configuration("3d_fullres"))
    project.must_run()
    assert_complete(project, {0, 1, 2, 3})
    summary = project.json(f"results/{NAME}/default/3d_fullres/crossval/summary.json")
    assert all(key.startswith("(") or key.isdigit() for key in summary["mean"])
    assert any("," in key for key in summary["mean"])


def test_ignore_label(phantom_project: Make) -> None:
    project = phantom_project("ignore", **one_configuration("3d_fullres"))
    project.must_run()
    raw = Path(project.config["datasets"][NAME]["path"])
    ignore = json.loads((raw / "dataset.json").read_text())["labels"]["ignore"]
    assert_complete(project, set(range(ignore)))
    summary = project.json(f"results/{NAME}/default/3d_fullres/crossval/summary.json")
    first = summary["metric_per_case"][0]
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / Path(first["reference_file"]).name)))
    counts = first["metrics"]["1"]
    assert counts["TP"] + counts["FP"] + counts["FN"] + counts["TN"] == (voxels != ignore).sum() < voxels.size


def test_regions_with_ignore_label(phantom_project: Make) -> None:
    project = phantom_project("regions_ignore", **one_configuration("2d"))
    project.must_run()
    assert_complete(project, {0, 1, 2, 3})


def test_two_dimensional_images(phantom_project: Make) -> None:
    project = phantom_project("2d")
    project.must_run()
    assert set(project.json(f"results/{NAME}/default/plan/plans.json")["configurations"]) == {"2d"}
    assert_complete(project, {0, 1, 2})


def test_a_setting_that_one_of_two_datasets_cannot_have(phantom_project: Make) -> None:
    """2-D images have no 3d_fullres: there the selected configuration predicts, said before anything is trained."""
    flat, solid = "Dataset900_Phantom", "Dataset901_Solid"
    project = phantom_project("2d", training={"folds": "all"}, prediction={"configuration": "3d_fullres"})
    raw = Path(project.config["datasets"][flat]["path"]).with_name(solid)
    make_phantom("plain", 4, seed=1, output=raw, test_cases=0)
    project.config["datasets"][solid] = {**project.config["datasets"][flat], "path": str(raw)}
    project.must_run("plan_all")
    told = rf"dataset {flat}, pipeline default: prediction.configuration is 3d_fullres, but 3d_fullres was not planned"
    run = project.must_run("train_all", options=("--dry-run",))
    assert len(re.findall(told, run.output)) == 1 and f"dataset {solid}" not in run.output
    project.must_run(f"results/{flat}/default/selection")
    selection = project.json(f"results/{flat}/default/selection/selection.json")
    assert selection["best"] == "2d" and "but 3d_fullres was not planned for this dataset." in selection["reason"]
    del project.config["datasets"][solid]
    refused = project.run("train_all", options=("--dry-run",))
    assert (
        refused.exit_code == 1 and "prediction.configuration is 3d_fullres, but the candidates are 2d" in refused.output
    )


def test_all_four_configurations_with_cascade(phantom_project: Make) -> None:
    """A small patch makes the low resolution and the cascade appear; the cascade trains on out-of-fold label maps."""
    project = phantom_project("large", planning={"max_patch_size": 32, "gpu_memory_gb": 0.02})
    run = project.must_run(cores=2)
    root = results(project)
    plan = project.json(f"results/{NAME}/default/plan/plans.json")["configurations"]
    assert set(plan) == {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}
    assert run.jobs["train_fold"] == 8 and run.jobs["evaluate_ensemble"] == 6
    maps = json.loads((root / "3d_lowres" / "next_stage.json").read_text())["target"]["3d_cascade_fullres"]
    assert len(maps) == 4
    selection = json.loads((root / "selection" / "selection.json").read_text())
    assert len(selection["scores"]) == 10
    assert_complete(project, set(range(10)))


def test_cascade_is_predicted_through_its_previous_stage(phantom_project: Make) -> None:
    """With the cascade chosen, the low resolution model predicts the test images first and goes into the model."""
    project = phantom_project(
        "large",
        planning={"max_patch_size": 32, "gpu_memory_gb": 0.02},
        training={"configurations": ["3d_cascade_fullres"]},
    )
    run = project.must_run(cores=2)
    assert run.jobs["train_fold"] == 4 and run.jobs["predict_test"] == 2
    model = assert_complete(project, set(range(10)))
    assert (results(project) / "model" / "3d_lowres").is_dir()
    assert "3d_cascade_fullres" in json.dumps(model)


def test_training_on_all_cases(phantom_project: Make) -> None:
    project = phantom_project("plain", training={"folds": "all"})
    run = project.must_run()
    assert run.jobs["train_fold"] == 2 and run.jobs["summarize_crossval"] == 0
    selection = project.json(f"results/{NAME}/default/selection/selection.json")
    assert selection["best"] == "3d_fullres" and "folds: all" in selection["reason"]
    assert_complete(project, {0, 1, 2})


def test_cascade_on_all_cases(phantom_project: Make) -> None:
    """Its previous stage is trained in folds all the same: the cascade learns from out-of-fold label maps."""
    project = phantom_project(
        "large",
        planning={"max_patch_size": 32, "gpu_memory_gb": 0.02},
        training={"configurations": ["3d_cascade_fullres"], "folds": "all"},
    )
    run = project.must_run(cores=2)
    assert run.jobs["train_fold"] == 3 and run.jobs["predict_fold"] == 2
    assert (results(project) / "3d_cascade_fullres" / "fold_all" / "model.safetensors").is_file()
    assert (results(project) / "model" / "3d_lowres").is_dir()
    assert_complete(project, set(range(10)))


def test_without_test_images_the_workflow_ends_at_model_and_report(phantom_project: Make) -> None:
    project = phantom_project("plain", **one_configuration("2d"))
    raw = Path(project.config["datasets"][NAME]["path"])
    for path in sorted((raw / "imagesTs").iterdir()):
        path.unlink()
    run = project.must_run()
    assert run.jobs["predict_test"] == 0 and run.jobs["finish_test"] == 0
    assert (results(project) / "report.html").is_file() and (results(project) / "model.zip").is_file()


PLUGIN_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-plugin.md"


def test_plugin_with_network_and_loss(phantom_project: Make, tmp_path: Path) -> None:
    """The plugin is the one that the guide shows."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN_GUIDE.read_text().split("```python\n")[1].split("```")[0])
    settings = {"configurations": ["3d_fullres"], "network": "one_convolution", "loss": "mean_cross_entropy"}
    project = phantom_project("plain", training={**settings, "deep_supervision": False})
    project.config["plugins"] = [str(plugin)]
    project.must_run()
    model = assert_complete(project, {0, 1, 2})
    assert "mine.py" in json.dumps(model)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"training": {"epohcs": 3}}, "training.epohcs is not known; did you mean training.epochs?"),
        ({"training": {"epochs": "many"}}, "training.epochs"),
    ],
)
def test_mistyped_settings_are_one_line(phantom_project: Make, section: dict[str, Any], message: str) -> None:
    project = phantom_project("plain", **section)
    run = project.run()
    assert run.exit_code == 1
    assert message in run.output
    assert "Traceback" not in run.output
