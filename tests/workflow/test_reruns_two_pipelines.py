"""The rerun table for two pipelines over two datasets: an edit reaches what depends on it, in every pipeline, alone.

The tests share one project and run in order; each leaves it finished.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segwright.core.dataset import batch_of
from segwright.core.files import file_digest
from segwright.phantom import make_phantom
from tests.workflow.runner import TINY, Project
from tests.workflow.test_reruns import changed_library, images, make_larger_than_a_megabyte, rewrite, set_num_training

pytestmark = [pytest.mark.acceptance, pytest.mark.workflow, pytest.mark.timeout(3000)]

SOLID, FLAT = "Dataset900_Phantom", "Dataset901_Second"
BATCHES = 2
REPLAN = Counter(inspect_batch=1, collect_checks=1, require_valid_dataset=1, fingerprint=1, split=1, plan=2)
STORE = Counter(preprocess_batch=1, index_preprocessed=1)
TRAINING = Counter(train_fold=2, predict_fold=2, summarize_crossval=1)
BELOW = Counter(
    select_best=1, determine_postprocessing=1, package_model=1, predict_test=1, finish_test=1, report=1
)  # fmt: skip


def times(jobs: Counter[str], factor: int) -> Counter[str]:
    return Counter({rule: count * factor for rule, count in jobs.items()})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("raw")
    for name, preset in ((SOLID, "plain"), (FLAT, "anisotropic")):
        make_phantom(preset, 4, seed=1, output=root / name, test_cases=1)
        for path in [*images(root / name), *images(root / name, "imagesTs")]:
            make_larger_than_a_megabyte(path)
    return {name: root / name for name in (SOLID, FLAT)}


def configuration(data: dict[str, Path]) -> dict:
    datasets = {name: {"path": str(path), "splits": {"folds": 2}, "batches": BATCHES} for name, path in data.items()}
    defaults = {
        **TINY,
        "planning": {**TINY["planning"], "spacing_mm": [1.0, 1.0, 1.0]},  # so that new cases keep the stores
        "training": {**TINY["training"], "configurations": ["2d"]},
    }
    pipelines = {"default": {}, "wide": {"planning": {"base_features": 6}}}
    return {"datasets": datasets, "defaults": defaults, "pipelines": pipelines, "execution": {"device": "cpu"}}


@pytest.fixture(scope="module")
def project(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("two"), configuration(data))
    jobs = project.must_run(cores=2).jobs
    assert jobs["plan"] == 4 and jobs["train_fold"] == 8 and jobs["inspect_batch"] == 2 * BATCHES
    assert jobs["preprocess_batch"] == 2 * BATCHES, "both pipelines share the preprocessed cases"
    return project


def untouched(project: Project, dataset: str) -> dict[Path, str]:
    """Digests of everything below the results of a dataset that is no log."""
    root = project.folder / "results" / dataset
    return {path: file_digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


def test_nothing_edited(project: Project) -> None:
    assert project.must_run().jobs == Counter()


def test_image_touched_with_equal_content(project: Project, data: dict[str, Path]) -> None:
    os.utime(images(data[SOLID])[0])
    slow = Path(__file__).parent / "slow_split"
    assert project.must_run(python_path=slow, cores=2).jobs == REPLAN


def test_image_content_changed_in_one_dataset(project: Project, data: dict[str, Path]) -> None:
    other = untouched(project, FLAT)
    rewrite(images(data[SOLID])[0], 1.0)
    assert project.must_run(cores=2).jobs == REPLAN + STORE + times(TRAINING + BELOW, 2)
    assert untouched(project, FLAT) == other


def test_label_corrected_in_one_case(project: Project, data: dict[str, Path]) -> None:
    other = untouched(project, SOLID)
    label = images(data[FLAT], "labelsTr")[0]
    image = sitk.ReadImage(str(label))
    array = sitk.GetArrayFromImage(image)
    array[tuple(np.argwhere(array == 1)[0])] = 2
    corrected = sitk.GetImageFromArray(array)
    corrected.CopyInformation(image)
    sitk.WriteImage(corrected, str(label))
    stored = list((project.folder / f"results/{FLAT}/data/preprocessed").glob("*/cases/*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in stored}
    assert project.must_run(cores=2).jobs == REPLAN + STORE + times(TRAINING + BELOW, 2)
    kept = [path for path, made in before.items() if path.is_file() and path.stat().st_mtime_ns == made]
    assert len(kept) == len(before) - 1
    assert untouched(project, SOLID) == other


def test_case_added_then_removed(project: Project, data: dict[str, Path]) -> None:
    folder, added = data[SOLID], "phantom_new"
    source = images(folder)[1].name.removesuffix("_0000.nii.gz")
    new = [folder / "imagesTr" / f"{added}_0000.nii.gz", folder / "labelsTr" / f"{added}.nii.gz"]
    shutil.copy(images(folder)[1], new[0])
    shutil.copy(folder / "labelsTr" / f"{source}.nii.gz", new[1])
    rewrite(new[0], 2.0)
    set_num_training(folder, 5)
    below = STORE + times(TRAINING + BELOW, 2)
    existing = {batch_of(path.name[:-12], BATCHES) for path in images(folder) if added not in path.name}
    assert batch_of(added, BATCHES) in existing
    assert project.must_run(cores=2).jobs == REPLAN + below
    for path in new:
        path.unlink()
    set_num_training(folder, 4)
    assert project.must_run(cores=2).jobs == REPLAN + below


def test_epochs_of_one_pipeline_changed(project: Project) -> None:
    project.config["pipelines"]["wide"]["training"] = {"epochs": 2}
    assert project.must_run(cores=2).jobs == times(TRAINING + BELOW, 2)


def test_batch_size_of_one_pipeline_changed(project: Project) -> None:
    project.config["pipelines"]["wide"]["planning"]["overrides"] = {"2d": {"batch_size": 3}}
    assert project.must_run(cores=2).jobs == times(Counter(plan=1) + TRAINING + BELOW, 2)


def test_model_deleted(project: Project) -> None:
    (project.folder / f"results/{FLAT}/wide/2d/fold_1/model.safetensors").unlink()
    assert project.must_run("train_all").jobs == Counter(train_fold=1)
    jobs = project.must_run().jobs
    assert jobs["train_fold"] == 0 and jobs["predict_fold"] <= 1 and jobs["plan"] == 0


def test_plans_made_again_identically(project: Project) -> None:
    assert project.must_run(options=("-R", "plan"), cores=2).jobs == Counter(plan=4)


def test_pipeline_added_reordered_dropped(project: Project) -> None:
    project.config["pipelines"]["third"] = {"planning": {"base_features": 8}}
    assert project.must_run(cores=2).jobs == times(Counter(plan=1) + TRAINING + BELOW, 2)
    project.config["pipelines"] = dict(reversed(project.config["pipelines"].items()))
    assert project.must_run().jobs == Counter()
    del project.config["pipelines"]["third"]
    assert project.must_run().jobs == Counter()


def test_winner_changes_in_one_pipeline(project: Project) -> None:
    """A second candidate is trained in one pipeline; where it wins, what rests on the winner is made again."""
    project.config["pipelines"]["wide"]["training"]["configurations"] = ["2d", "3d_fullres"]
    jobs = project.must_run(cores=2).jobs
    assert jobs["train_fold"] == 4 and jobs["plan"] == 0 and jobs["evaluate_ensemble"] == 2
    winners = {name: project.json(f"results/{name}/wide/selection/selection.json")["members"] for name in (SOLID, FLAT)}
    other = {name: "2d" if members != ["2d"] else "3d_fullres" for name, members in winners.items()}
    project.config["pipelines"]["wide"]["training"]["configurations"] = [other[SOLID]]
    jobs = project.must_run(cores=2).jobs
    assert jobs["train_fold"] == jobs["predict_fold"] == jobs["plan"] == 0
    assert jobs["select_best"] == jobs["package_model"] == jobs["report"] == 2
    for name in winners:
        assert project.json(f"results/{name}/wide/selection/selection.json")["members"] == [other[SOLID]]


def test_test_image_added(project: Project, data: dict[str, Path]) -> None:
    existing = images(data[FLAT], "imagesTs")[0]
    taken = batch_of(existing.name[:-12], BATCHES)
    name = next(f"extra_{i}" for i in range(100) if batch_of(f"extra_{i}", BATCHES) != taken)
    shutil.copy(existing, data[FLAT] / "imagesTs" / f"{name}_0000.nii.gz")
    expected = Counter(inspect_test_batch=1) + times(Counter(predict_test=1, finish_test=1, report=1), 2)
    assert project.must_run(cores=2).jobs == expected


def test_report_title_and_command_line(project: Project) -> None:
    project.config["report"] = {"title": "Another title"}
    assert project.must_run(cores=2).jobs == Counter(report=4)
    assert project.must_run(options=("--config", 'execution={"jobs_per_gpu": 2}')).jobs == Counter()


def test_stage_version_raised(project: Project, tmp_path: Path) -> None:
    copy = changed_library(tmp_path, "core/versions.py", "STAGE_VERSION['evaluation'] += 1\n")
    jobs = project.must_run(python_path=copy, cores=2).jobs
    assert jobs["summarize_crossval"] == 4 and jobs["train_fold"] == jobs["predict_fold"] == jobs["plan"] == 0
    assert project.must_run(python_path=copy).jobs == Counter()


def test_interrupted_and_continued_with_other_cores(data: dict[str, Path], tmp_path: Path) -> None:
    """Ctrl-C during training on two cores, then one core: the same bytes as a run that nobody disturbed."""
    config = configuration(data)
    config["defaults"]["training"]["epochs"] = 8
    config["pipelines"] = {"default": {}}
    disturbed, calm = Project(tmp_path / "disturbed", config), Project(tmp_path / "calm", config)
    command = disturbed.prepare(cores=2)
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = f"results/{SOLID}/default/2d"
    while process.poll() is None and not list((disturbed.folder / state).glob("fold_*/state/*.json")):
        time.sleep(0.1)
    assert process.poll() is None, "the run ended before it could be interrupted"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) != 0
    jobs = disturbed.must_run(cores=1).jobs
    assert jobs["train_fold"] >= 1 and jobs["fingerprint"] == 0
    calm.must_run(cores=2)
    for name in data:
        for path in ("2d/fold_0/model.safetensors", "2d/fold_1/model.safetensors", "final/manifest.json"):
            ours, theirs = (run.folder / f"results/{name}/default/{path}" for run in (disturbed, calm))
            assert ours.read_bytes() == theirs.read_bytes(), path
    assert json.loads((disturbed.folder / f"results/{FLAT}/default/final/manifest.json").read_text())["cases"]
