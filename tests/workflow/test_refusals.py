"""What a user can mend is said in one message before any job starts, without Snakemake's frame of places and files."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from segwright.core.files import write_bytes, write_json
from segwright.phantom import make_phantom
from tests.faults.test_storage import mounted, set_read_only, snapshot
from tests.workflow.runner import TINY, Project, Run

NAME = "Dataset900_Phantom"
PLAN = f"results/{NAME}/default/plan"
_FRAME = re.compile(r"Traceback|Exception|Wildcards:|\.smk|Finished jobid", re.MULTILINE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / NAME
    make_phantom("plain", 4, seed=1, output=folder, test_cases=0)
    return folder


@pytest.fixture(scope="module")
def planned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("planned"), config(data))
    project.must_run("plan_all")
    return project


def config(data: Path, **changes: Any) -> dict[str, Any]:
    dataset = {"path": str(data), "splits": {"folds": 2}, "batches": 1}
    return {"datasets": {NAME: dataset}, "defaults": TINY, "execution": {"device": "cpu"}, **changes}


def assert_refused(run: Run, message: str) -> None:
    """One line says it, and nothing else."""
    assert run.exit_code == 1 and not run.jobs
    assert len(re.findall(message, run.output)) == 1, run.output[-3000:]
    assert not _FRAME.search(run.output), run.output[-3000:]


def test_read_only_results(data: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=24m") as disk:
        project = Project(tmp_path / "work", config(data, results=str(disk / "results")))
        project.must_run("inspect_all")
        set_read_only(disk, True)
        assert not project.must_run("inspect_all").jobs, "nothing to do needs no writing"
        set_read_only(disk, False)
        made = disk / "results" / NAME / "data"
        (made / "valid.json").unlink()  # to be made again, and what comes of it replaced
        before = snapshot(disk)
        set_read_only(disk, True)
        told = rf"{made} is read-only: its file system is mounted read-only. Make it writable, or put"
        assert_refused(project.run("inspect_all"), told)
        elsewhere = Project(tmp_path / "work", config(data, results=str(disk / "other")))
        assert_refused(elsewhere.run("inspect_all"), rf"{disk} is read-only: its file system is mounted read-only")
        elsewhere.must_run("inspect_all", options=("--dry-run",))
        assert snapshot(disk) == before
        set_read_only(disk, False)
        assert project.must_run("inspect_all").jobs["require_valid_dataset"] == 1


def test_read_only_working_folder(planned: Project, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=24m") as disk:
        set_read_only(disk, True)
        run = planned.run("plan_all", options=("--directory", str(disk)))
        assert_refused(run, rf"{disk} is read-only: .*Snakemake keeps its own notes there")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("configurations.json", "{", "not valid JSON"),
        ("configurations.json", None, "the file does not exist"),
        ("configurations.json", "[]", "not the overview of a plan"),
        ("plans.json", "{}", "`image_reader_writer` is missing"),
    ],
)
def test_altered_plan(planned: Project, name: str, content: str | None, problem: str) -> None:
    path = planned.folder / PLAN / name
    original = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    run = planned.run("all")
    path.write_bytes(original)
    assert_refused(run, rf"{PLAN}/{name}: .*{problem}.*; delete the folder it lies in and run again")


def test_altered_selection(planned: Project) -> None:
    """The same sentence comes from the other checkpoint; asked for directly, since nothing is trained here."""
    from segwright.core.errors import DamagedFileError
    from segwright.experiment import read_selected_members

    path = planned.folder / "selection" / "selection.json"
    write_json(path, {"members": ["2d"]}, sealed="delete the folder it lies in and run again")
    assert read_selected_members(path.parent) == ["2d"]
    path.write_text(path.read_text().replace("2d", "3d"))
    with pytest.raises(DamagedFileError, match=r"selection\.json: .*digest.*; delete the folder it lies in"):
        read_selected_members(path.parent)


def test_configurations_nobody_planned(planned: Project) -> None:
    project = Project(
        planned.folder, {**planned.config, "defaults": {**TINY, "training": {"configurations": ["3d_full"]}}}
    )
    run = project.run("train_all")
    assert_refused(
        run, r"training.configurations names 3d_full, which the plans do not have \(planned: 2d, 3d_fullres\)"
    )


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("Nope/data/checks.json", rf"Nope/data/checks.json: targets .* below results of the datasets {NAME} \("),
        (f"{NAME}/nope/model.zip", r"nope/model.zip: targets are inspect_all, .* \(pipelines: default\); correct it"),
        (f"{NAME}/data/inspection/batch_7.json", "there is no batch batch_7 .there are: batch_0.; ask for one of"),
        (f"{NAME}/default/ensembles/2d+3d/summary.json", "no planned configuration 3d .there are: 2d, 3d_fullres."),
        (f"{NAME}/default/2d/fold_2/model.safetensors", "there is no fold 2 .there are: 0, 1, all.; ask for one of"),
    ],
)
def test_results_of_what_is_not_configured(planned: Project, target: str, told: str) -> None:
    assert_refused(planned.run(f"results/{target}", options=("--dry-run",)), told)


def test_another_number_of_batches(planned: Project) -> None:
    dataset = {**planned.config["datasets"][NAME], "batches": 3}
    project = Project(planned.folder, {**planned.config, "datasets": {NAME: dataset}})
    assert_refused(project.run("plan_all"), "`batches` is 3 but .* inspected with 1: .*; set `batches: 1`, or delete")


def test_a_model_of_a_pipeline_that_is_no_longer_configured_may_be_started_from(planned: Project) -> None:
    model = planned.folder / f"results/{NAME}/gone/2d/fold_0/model.safetensors"
    write_bytes(model, b"")
    training = {**TINY["training"], "initial_model": str(model.relative_to(planned.folder))}
    project = Project(planned.folder, {**planned.config, "defaults": {**TINY, "training": training}})
    run = project.must_run("train_all", options=("--dry-run",))
    assert "train_fold" in run.output


def test_options_written_twice(planned: Project, tmp_path: Path) -> None:
    """Snakemake itself would take the second section and forget the first."""
    twice = tmp_path / "twice.yaml"
    twice.write_text("training: {epochs: 2}\nselection: {ensembles: false}\ntraining: {seed: 1}\n")
    run = planned.run("plan_all", options=("--dry-run", f"--configfile={twice}"))
    assert_refused(run, rf"{twice}: not valid YAML \(the key `training` is written twice .*line 3")


def test_the_configuration_of_the_working_folder_in_another_encoding(planned: Project) -> None:
    """Snakemake reads it itself; a `--configfile` before this workflow is read."""
    own = planned.folder / "config" / "config.yaml"
    write_bytes(own, "# größe\n".encode("latin-1"))
    run = planned.run("plan_all", options=("--dry-run",))
    own.unlink()
    assert_refused(run, "config/config.yaml: not text in UTF-8 .invalid start byte.; save it as UTF-8")


def test_what_nobody_trains_cannot_predict(planned: Project) -> None:
    project = Project(planned.folder, {**planned.config, "defaults": {**TINY, "prediction": {"configuration": "3d"}}})
    assert_refused(project.run("train_all"), r"prediction.configuration is 3d, but the candidates are 2d, 3d_fullres, ")


@pytest.mark.parametrize(("folder", "spelling"), [(".", ".//results/"), ("results", ".")])
def test_results_may_be_spelt_as_one_likes(planned: Project, folder: str, spelling: str) -> None:
    project = Project(planned.folder / folder, {**planned.config, "results": spelling})
    run = project.must_run("all", options=("--dry-run",))
    planned_jobs = dict(re.findall(r"^(\w+) +(\d+)$", run.output, re.MULTILINE))
    assert planned_jobs["train_fold"] == "4" and "plan" not in planned_jobs, run.output[-3000:]


def test_dangling_links_are_told_by_the_inspection(data: Path, tmp_path: Path) -> None:
    raw = tmp_path / NAME
    shutil.copytree(data, raw)
    image = raw / "imagesTr" / "phantom_001_0000.nii.gz"
    image.unlink()
    image.symlink_to(tmp_path / "moved.nii.gz")
    run = Project(tmp_path / "work", config(raw)).run("inspect_all")
    assert run.exit_code == 1 and run.jobs == Counter(inspect_batch=1, collect_checks=1)
    assert "imagesTr/phantom_001_0000.nii.gz" in run.output and "MissingInput" not in run.output


def test_cascades_without_folds_are_refused_before_any_training(tmp_path: Path) -> None:
    raw = tmp_path / NAME
    make_phantom("large", 2, seed=1, output=raw, test_cases=0)
    planning = {**TINY["planning"], "gpu_memory_gb": 0.02}
    defaults = {**TINY, "planning": planning, "training": {**TINY["training"], "folds": "all"}}
    settings = config(raw, defaults=defaults)
    settings["datasets"][NAME]["splits"]["folds"] = 3
    run = Project(tmp_path / "work", settings).run("train_all")
    assert run.exit_code == 1 and run.jobs["plan"] == 1 and not run.jobs["preprocess_batch"]
    told = "3d_cascade_fullres learns from what 3d_lowres predicts .* too few for 3 folds"
    assert len(re.findall(told, run.output)) == 1, run.output[-3000:]
    assert "MissingInput" not in run.output and "Traceback" not in run.output
