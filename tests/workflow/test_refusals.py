"""What a user can mend is said in one message before any job starts, without Snakemake's frame of places and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segwright.core.files import write_json
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


def config(data: Path, **changes: object) -> dict[str, object]:
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
