"""Edit a finished run and assert which jobs run: only what became invalid.

The tests share one project and run in order; each leaves it finished. Images are larger than 1 MB, because Snakemake
compares smaller files by content and would hide a mistake.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segwright.core.dataset import batch_of
from segwright.core.versions import STAGE_MODULES
from segwright.phantom import make_phantom
from tests.unit.core import test_versions
from tests.workflow.runner import ROOT, TINY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("reruns"), pytest.mark.timeout(1500)]

NAME = "Dataset900_Phantom"
BATCHES = 2
FINISH = Counter(finish_test=1, report=1)
SELECT_AND_BELOW = Counter(select_best=1, determine_postprocessing=1, package_model=1, predict_test=1) + FINISH
ENSEMBLE = Counter(evaluate_ensemble=1)
STORES = ("inspection/values/*.npz", "preprocessed/*/cases/*.safetensors")
REPLAN = Counter(inspect_batch=1, collect_checks=1, require_valid_dataset=1, fingerprint=1, split=1, plan=1)


def training_of(configurations: int, folds: int = 2) -> Counter[str]:
    jobs = configurations * folds
    return Counter(train_fold=jobs, predict_fold=jobs, summarize_crossval=configurations)


def further_members(project: Project, pipeline: str = "default") -> Counter[str]:
    """An ensemble predicts the test images once more than a single configuration."""
    members = project.json(f"results/{NAME}/{pipeline}/selection/selection.json")["members"]
    return Counter(predict_test=len(members) - 1)


def make_larger_than_a_megabyte(path: Path) -> None:
    """Append an empty gzip member with a long comment: the image stays small, the file does not."""
    member = gzip.compress(b"")
    header, rest = member[:10], member[10:]
    path.write_bytes(path.read_bytes() + header[:3] + b"\x10" + header[4:] + b"x" * 1_200_000 + b"\x00" + rest)


def images(data: Path, folder: str = "imagesTr") -> list[Path]:
    return sorted((data / folder).glob("*.nii.gz"))


def rewrite(path: Path, change: float) -> None:
    """The same image with slightly other intensities, again larger than a megabyte."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    array[0, 0, 0] += change
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))
    make_larger_than_a_megabyte(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / NAME
    make_phantom("plain", 5, seed=1, output=folder, test_cases=1)
    for path in [*images(folder), *images(folder, "imagesTs")]:
        make_larger_than_a_megabyte(path)
    return folder


@pytest.fixture(scope="module")
def project(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of one pipeline with 2d and 3d_fullres. The spacing is fixed, so new cases keep the stores."""
    config = {
        "datasets": {NAME: {"path": str(data), "splits": {"folds": 2}, "batches": BATCHES}},
        "defaults": {**TINY, "planning": {**TINY["planning"], "spacing_mm": [1.0, 1.0, 1.0]}},
        "execution": {"device": "cpu"},
    }
    project = Project(tmp_path_factory.mktemp("reruns"), config)
    project.must_run(cores=2)
    configurations = project.json(f"results/{NAME}/default/plan/plans.json")["configurations"]
    assert set(configurations) == {"2d", "3d_fullres"}
    return project


@pytest.fixture(autouse=True)
def all_on_one_worker(request: pytest.FixtureRequest) -> None:
    spread = "PYTEST_XDIST_WORKER" in os.environ and not request.node.nodeid.endswith("@reruns")
    assert not spread, "these tests share a project; run them with `--dist loadgroup` or in one process"


def test_nothing_edited(project: Project) -> None:
    assert project.must_run().jobs == Counter()


def modules_loaded_by(python: str, *words: str) -> set[str]:
    said = subprocess.run([python, "-X", "importtime", *words], capture_output=True, text=True, check=True)
    return {line.rsplit("|", 1)[1].strip() for line in said.stderr.splitlines() if line.startswith("import time:")}


def test_dry_run_does_not_load_pandas(project: Project) -> None:
    """It takes 0.3 s, and Snakemake loads it to compare params, which every finished job here has."""
    python, *rest = project.prepare(options=("--dry-run",))
    if "pandas" in modules_loaded_by(python, "-m", "snakemake", "--version"):
        pytest.skip("a plugin of Snakemake loads pandas before the workflow is read (the SLURM executor does)")
    loaded = modules_loaded_by(python, *rest)
    assert "segwright.experiment" in loaded
    assert "pandas" not in loaded


def test_image_touched_with_equal_content(project: Project, data: Path) -> None:
    os.utime(images(data)[0])
    slow = Path(__file__).parent / "slow_split"
    assert project.must_run(python_path=slow).jobs == REPLAN


def test_image_content_changed(project: Project, data: Path) -> None:
    rewrite(images(data)[0], 1.0)
    jobs = project.must_run(cores=2).jobs
    expected = REPLAN + Counter(preprocess_batch=2, index_preprocessed=2) + training_of(2) + ENSEMBLE + SELECT_AND_BELOW
    assert jobs == expected + further_members(project)


def test_case_added_then_removed(project: Project, data: Path) -> None:
    added = "phantom_new"
    source = images(data)[1].name.removesuffix("_0000.nii.gz")
    shutil.copy(images(data)[1], data / "imagesTr" / f"{added}_0000.nii.gz")
    shutil.copy(data / "labelsTr" / f"{source}.nii.gz", data / "labelsTr" / f"{added}.nii.gz")
    rewrite(data / "imagesTr" / f"{added}_0000.nii.gz", 2.0)
    set_num_training(data, 6)
    below = Counter(preprocess_batch=2, index_preprocessed=2) + training_of(2) + ENSEMBLE + SELECT_AND_BELOW
    store = project.folder / f"results/{NAME}/data/preprocessed"
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/cases/*.safetensors")}
    assert project.must_run(cores=2).jobs == REPLAN + below + further_members(project)
    after = {path: path.stat().st_mtime_ns for path in store.glob("*/cases/*.safetensors")}
    assert {path.name.split(".")[0] for path in after.keys() - before.keys()} == {added}
    assert all(after[path] == before[path] for path in before), "cases that did not change were written again"

    (data / "imagesTr" / f"{added}_0000.nii.gz").unlink()
    (data / "labelsTr" / f"{added}.nii.gz").unlink()
    set_num_training(data, 5)
    assert batch_of(added, BATCHES) in {batch_of(path.name[:-12], BATCHES) for path in images(data)}
    assert project.must_run(cores=2).jobs == REPLAN + below + further_members(project)
    kept = {path: path.stat().st_mtime_ns for path in store.glob("*/cases/*.safetensors")}
    assert kept == before, "a case was preprocessed again"


def test_epochs_changed(project: Project) -> None:
    project.config["defaults"]["training"]["epochs"] = 2
    jobs = project.must_run(cores=2).jobs
    assert jobs == training_of(2) + ENSEMBLE + SELECT_AND_BELOW + further_members(project)


def test_batch_size_of_one_configuration_changed(project: Project) -> None:
    project.config["defaults"]["planning"]["overrides"] = {"3d_fullres": {"batch_size": 3}}
    jobs = project.must_run(cores=2).jobs
    # The winner decides whether the test images are predicted again: only with a model that changed.
    assert jobs - Counter(predict_test=2) == Counter(plan=1) + training_of(1) + ENSEMBLE + SELECT_AND_BELOW - Counter(
        predict_test=1
    )
    assert jobs["predict_test"] <= 2


def test_model_deleted(project: Project) -> None:
    (project.folder / f"results/{NAME}/default/2d/fold_1/model.safetensors").unlink()
    assert project.must_run("train_all").jobs == Counter(train_fold=1)
    jobs = project.must_run().jobs
    assert jobs["train_fold"] == 0 and jobs["predict_fold"] <= 1 and jobs["plan"] == 0


def test_plan_made_again_identically(project: Project) -> None:
    assert project.must_run(options=("-R", "plan")).jobs == Counter(plan=1)


def test_pipeline_added_reordered_dropped(project: Project) -> None:
    project.config["pipelines"] = {
        "default": {},
        "wide": {"planning": {"base_features": 6}, "training": {"configurations": ["3d_fullres"]}},
    }
    jobs = project.must_run(cores=2).jobs
    assert jobs == Counter(plan=1) + training_of(1) + SELECT_AND_BELOW
    project.config["pipelines"] = dict(reversed(project.config["pipelines"].items()))
    assert project.must_run().jobs == Counter()
    del project.config["pipelines"]["wide"]
    assert project.must_run().jobs == Counter()


def test_test_image_added(project: Project, data: Path) -> None:
    existing = images(data, "imagesTs")[0]
    existing_batch = batch_of(existing.name[:-12], BATCHES)
    name = next(f"extra_{i}" for i in range(100) if batch_of(f"extra_{i}", BATCHES) != existing_batch)
    shutil.copy(existing, data / "imagesTs" / f"{name}_0000.nii.gz")
    jobs = project.must_run().jobs
    assert jobs == Counter(inspect_test_batch=1, predict_test=1) + further_members(project) + FINISH


def test_report_title_changed(project: Project) -> None:
    project.config["report"] = {"title": "Another title"}
    assert project.must_run().jobs == Counter(report=1)
    assert "Another title" in (project.folder / f"results/{NAME}/default/report.html").read_text()


def test_config_on_the_command_line(project: Project) -> None:
    """`--config` goes over the file for this run alone; sections are merged, not replaced."""
    override = ("--config", 'report={"title": "For one run"}')
    assert project.must_run(options=override).jobs == Counter(report=1)
    assert "For one run" in (project.folder / f"results/{NAME}/default/report.html").read_text()
    assert project.must_run(options=("--config", 'execution={"jobs_per_gpu": 2}')).jobs == Counter(
        report=1
    )  # the title again
    assert project.must_run().jobs == Counter()


def test_code_changed_without_a_raised_version(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow runs nothing again; the guard test is what notices."""
    copy = changed_library(tmp_path, "selection/best.py", "CHANGED = True\n")
    assert project.must_run(python_path=copy).jobs == Counter()
    before = {stage: test_versions.stage_digest(stage) for stage in STAGE_MODULES}
    monkeypatch.setattr(test_versions, "PACKAGE", copy / "segwright")
    assert [stage for stage, digest in before.items() if test_versions.stage_digest(stage) != digest] == ["selection"]
    with pytest.raises(AssertionError, match="the code of stage `selection` changed: if results change, raise"):
        test_versions.test_changed_code_comes_with_a_decision("selection")


def test_stage_version_raised(project: Project, tmp_path: Path) -> None:
    copy = changed_library(tmp_path, "core/versions.py", "STAGE_VERSION['reporting'] += 1\n")
    assert project.must_run(python_path=copy).jobs == Counter(report=1)
    assert project.must_run(python_path=copy).jobs == Counter()
    assert project.must_run().jobs == Counter(report=1)


def test_winner_changes(project: Project) -> None:
    """One candidate less: nothing is trained, what rests on the winner is made again."""
    before = project.json(f"results/{NAME}/default/selection/selection.json")
    other = next(name for name in ("2d", "3d_fullres") if [name] != before["members"])
    project.config["defaults"]["training"]["configurations"] = [other]
    jobs = project.must_run().jobs
    after = project.json(f"results/{NAME}/default/selection/selection.json")
    assert after["members"] == [other] != before["members"]
    predicted = 0 if other in before["members"] else 2  # batches of test images, since one was added
    assert jobs == SELECT_AND_BELOW - Counter(predict_test=1) + Counter(predict_test=predicted)


def test_label_corrected_in_one_case(project: Project, data: Path) -> None:
    """That case is inspected and preprocessed again, and no other."""
    project.config["defaults"]["training"]["configurations"] = ["2d"]  # one store is made again
    label = images(data, "labelsTr")[0]
    image = sitk.ReadImage(str(label))
    array = sitk.GetArrayFromImage(image)
    array[tuple(np.argwhere(array == 1)[0])] = 2
    corrected = sitk.GetImageFromArray(array)
    corrected.CopyInformation(image)
    sitk.WriteImage(corrected, str(label))
    os.utime(label, (1e9, 1e9))  # older than the results, as `mv`, `rsync -a` and `tar` put it there
    root = project.folder / f"results/{NAME}/data"
    kept = {path: path.stat().st_mtime_ns for place in STORES for path in root.glob(place)}
    stores = len(list(root.glob("preprocessed/*/index.json")))
    assert project.must_run("preprocess_all").jobs == REPLAN + Counter(preprocess_batch=1, index_preprocessed=1)
    case = label.name.removesuffix(".nii.gz")
    now = {path: path.stat().st_mtime_ns for place in STORES for path in root.glob(place)}
    changed = {path.name.split(".")[0] for path in now.keys() | kept.keys() if now.get(path) != kept.get(path)}
    assert changed == {case} and stores == 2


@pytest.mark.acceptance
def test_label_corrected_in_one_case_retrains_the_folds(project: Project) -> None:
    assert project.must_run().jobs == training_of(1) + SELECT_AND_BELOW + Counter(predict_test=1)


def changed_library(folder: Path, module: str, line: str) -> Path:
    """A copy of the library with one line more; a folder for PYTHONPATH."""
    shutil.copytree(ROOT / "src" / "segwright", folder / "segwright", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "segwright" / module).open("a") as stream:
        stream.write(line)
    return folder


def set_num_training(data: Path, count: int) -> None:
    path = data / "dataset.json"
    facts = json.loads(path.read_text())
    facts["numTraining"] = count
    path.write_text(json.dumps(facts))
