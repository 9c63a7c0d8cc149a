"""Faults on a finished workflow run: altered files, full disks, two runs at once, results that move."""

from __future__ import annotations

import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from segwright.core.files import read_json, write_json
from segwright.status import status_lines
from tests.acceptance.commands import segwright
from tests.acceptance.recorder import Check, quoted
from tests.faults.chaos import NAME, Chaos, processes_in, products
from tests.faults.test_altered_files import flip
from tests.faults.test_storage import fill, mounted, set_read_only
from tests.workflow.runner import Project

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(2400)]

Row = Callable[[str, str], Check]


@dataclass(frozen=True)
class Altered:
    """A file to alter, and what to delete so that its reader runs again when the first of it is asked for by name."""

    kind: str
    file: str
    reader_makes: tuple[str, ...]

    @property
    def target(self) -> str:
        return f"results/{NAME}/{self.reader_makes[0]}"


_TRAINED_2D = ("default/2d/fold_0/model.safetensors", "default/2d/fold_0/state")
_TRAINED_3D = ("default/3d_fullres/fold_0/model.safetensors", "default/3d_fullres/fold_0/state")
_ENSEMBLE = ("default/ensembles/2d+3d_fullres/summary.json", "default/ensembles/2d+3d_fullres")
_MODEL_OF_FOLD_1 = ("default/2d/fold_1/model.safetensors",)
_PREDICTED = ("default/2d/fold_0/validation.json",)
_FINAL = ("default/final/manifest.json", "default/final")
_SUMMARY = ("default/2d/crossval/summary.json",)
ALTERED = (
    Altered("inspection record", "data/inspection/batch_0.json", ("data/dataset_fingerprint.json",)),
    Altered("preprocessed case", "data/preprocessed/*3d*/cases/*.safetensors", _TRAINED_3D),
    Altered("list of preprocessed cases", "data/preprocessed/*2d*/batch_0.json", _TRAINED_2D),
    Altered("index", "data/preprocessed/*2d*/index.json", _TRAINED_2D),
    Altered("split", "data/splits/fold_1.json", _MODEL_OF_FOLD_1),
    Altered("plan slice", "default/plan/2d.train.json", _MODEL_OF_FOLD_1),
    Altered("weights", "default/2d/fold_0/model.safetensors", _PREDICTED),
    Altered("training record", "default/2d/fold_0/training.json", _PREDICTED),
    Altered("validation segmentation", "default/2d/fold_1/validation/*.nii.gz", _SUMMARY),
    Altered("probabilities", "default/3d_fullres/fold_0/probabilities/*", _ENSEMBLE),
    Altered("selection", "default/selection/selection.json", ("default/postprocessing.json",)),
    Altered("test prediction", "default/predictions/*/cases/*.nii.gz", _FINAL),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run: two configurations, two folds, one test image."""
    project = Chaos(tmp_path_factory.mktemp("faults"), seed=0, pace_s=1).project("finished")
    project.must_run(cores=2)
    return project


def results(project: Project) -> Path:
    return project.folder / "results" / NAME


def test_results_that_move_and_results_on_another_machine(check: Row, finished: Project, tmp_path: Path) -> None:
    row = check(
        "7 moved results", "the finished project moved to another folder; its results copied without `.snakemake`"
    )
    with row.measured():
        moved = Project(tmp_path / "moved", finished.config)
        shutil.copytree(finished.folder, moved.folder, symlinks=True)  # copies times, as a move does
        assert not moved.must_run().jobs
        copied = Project(tmp_path / "copied", finished.config)
        shutil.copytree(moved.folder / "results", copied.folder / "results")
        assert not copied.must_run().jobs
        fold = copied.folder / "results" / NAME / "default" / "3d_fullres" / "fold_0"
        for attempt in (attempts := read_json(fold / "state" / "attempts.json")):
            attempt["started_by"]["host"] = "the-other-machine"
        write_json(fold / "state" / "attempts.json", attempts)
        write_json(fold / "state" / "owner.json", {**attempts[-1]["started_by"], "host": "the-other-machine"})
        (fold / "model.safetensors").unlink()
        wanted = products(finished)
        run = copied.must_run("train_all", cores=2)
        assert run.jobs == {"train_fold": 1}
        copied.must_run(cores=2)
    assert products(copied) == wanted and platform.node() != "the-other-machine"
    row.say(
        "nothing runs again in either; on the copy a deleted model whose training was owned by a process of another "
        "host is made again from its state, all products equal"
    )


def test_altered_files_are_noticed_named_and_mended_as_told(check: Row, finished: Project) -> None:
    row = check(
        "7 altered files",
        f"one bit flipped in {len(ALTERED)} kinds of files of a finished run, its reader run again by the workflow; "
        "then what the message says is deleted and the same command given again",
    )
    wanted, rows = products(finished), []
    with row.measured():
        for entry in ALTERED:
            rows.append(f"{entry.kind}: {_alter(finished, entry)}")
        finished.must_run(cores=2)
    assert products(finished) == wanted, "mended runs give the same products"
    archive = results(finished) / "default" / "model.zip"
    damaged = finished.folder / "model.zip"
    shutil.copy(archive, damaged)
    flip(damaged, damaged.stat().st_size // 2, 3)
    raw = finished.folder.parent / "data" / NAME
    done = segwright("predict", "--model", damaged, "--input", raw / "imagesTs", "--output", finished.folder / "seg")
    assert done.returncode == 2 and "model.zip" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (finished.folder / "seg").exists() or not list((finished.folder / "seg").glob("*.nii.gz"))
    message = done.stderr.strip().splitlines()[-1].replace(str(finished.folder), "results")
    rows.append(f"model zip: {quoted([message])}")
    for text in rows:
        row.say(text)


def _alter(project: Project, entry: Altered) -> str:
    """Flip, run, follow the message, run; gives the message."""
    path = sorted(path for path in results(project).glob(entry.file) if path.is_file())[0]
    for name in entry.reader_makes:
        target = results(project) / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    position = path.read_bytes().rfind(b"1") if path.suffix == ".json" else path.stat().st_size * 2 // 3
    flip(path, position, 0)
    run = project.run(entry.target, cores=2)
    assert run.exit_code == 1, f"{entry.kind}: went unnoticed"
    # a job's log says so behind ERROR; what is read while the graph is built is refused in a line of its own
    said = re.findall(r"^(?:.* ERROR |.*DamagedFileError: )?(results/\S+: .* again.*)$", run.output, re.MULTILINE)
    (message,) = set(said)
    assert path.name in message and "Traceback (most" not in run.output, f"{entry.kind}: {run.output[-5000:]}"
    for name in re.search(r"delete (.+?)(?:,? (?:then|and) run again)", message)[1].split(" and "):  # type: ignore[index]
        known = {"it": path, "the folder it lies in": path.parent, "the dataset's plan folders": _plan(project)}
        told = known.get(name, project.folder / name)
        assert told.exists(), message
        shutil.rmtree(told) if told.is_dir() else told.unlink()
    project.must_run(entry.target, cores=2)
    return quoted([message])


def _plan(project: Project) -> Path:
    return results(project) / "default" / "plan"


def test_altered_state_is_not_used(check: Row, finished: Project) -> None:
    row = check("7 altered state", "one bit flipped in the newest training state of a fold, then trained on")
    fold = results(finished) / "default" / "3d_fullres" / "fold_1"
    wanted = products(finished)
    (fold / "model.safetensors").unlink()
    newest = max(fold.glob("state/epoch_*.pt"))
    flip(newest, newest.stat().st_size // 2, 0)
    with row.measured():
        run = finished.must_run("train_all", cores=2)
        finished.must_run(cores=2)
    (warning,) = {line for line in run.output.splitlines() if "going on from the state before it" in line}
    assert newest.name in warning and products(finished) == wanted
    row.say(f"{quoted([warning.split('WARNING ')[-1]])}; one epoch trained again, equal weights")


def test_two_workflows_in_one_folder(check: Row, finished: Project) -> None:
    row = check("7 two workflows", "the same command a second time while the first one runs")
    first_fold = results(finished) / "default" / "2d" / "fold_0"
    shutil.rmtree(first_fold / "state")
    (first_fold / "model.safetensors").unlink()
    command = finished.prepare("train_all", cores=2)
    with row.measured():
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait(lambda: (first_fold / "state" / "owner.json").is_file())
        told = status_lines(finished.folder / "results")
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert first.wait(timeout=300) == 0
    assert second.returncode == 1 and "LockException" in second.stderr + second.stdout
    assert any(f"Snakemake is running in {finished.folder} (process {first.pid})" in line for line in told), told
    assert any("running, 0 of 3 epochs" in line or "running, " in line for line in told)
    row.say("the second one is refused by Snakemake's lock; `segwright status` names the process of the first")
    finished.must_run(cores=2)


def test_orphaned_training_refuses_the_next_command(check: Row, finished: Project) -> None:
    row = check("7 orphan", "Snakemake killed during a training; `--unlock` and the same command while the orphan runs")
    fold = results(finished) / "default" / "2d" / "fold_0"
    shutil.rmtree(fold / "state")
    (fold / "model.safetensors").unlink()
    command = finished.prepare("train_all", cores=2)
    with row.measured():
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait(lambda: (fold / "state" / "owner.json").is_file())
        trainer = psutil.Process(read_json(fold / "state" / "owner.json")["pid"])
        trainer.send_signal(signal.SIGSTOP)  # an orphan that takes its time
        first.send_signal(signal.SIGKILL)
        first.wait()
        told = "\n".join(status_lines(finished.folder / "results"))
        assert "snakemake --unlock" in told and f"process {trainer.pid}" in told, told
        subprocess.run([*command, "--unlock"], check=True, capture_output=True)
        refused = finished.run("train_all", cores=2)
        assert refused.exit_code == 1 and f"process {trainer.pid}, since" in refused.output, refused.output[-3000:]
        trainer.send_signal(signal.SIGCONT)
        psutil.wait_procs(processes_in(finished.folder), timeout=120)
        finished.must_run(cores=2)
    (message,) = set(re.findall(r"ERROR (.*another training.*)$", refused.output, re.MULTILINE))
    row.say(f"{quoted([message])}; after the orphan ended the command went through")


def test_full_disk_and_read_only_results(check: Row, finished: Project, tmp_path: Path) -> None:
    row = check("7 full disk", "results on a file system of 24 MB that fills up at several points, then is read-only")
    wanted, messages = products(finished), []
    with row.measured(), mounted(tmp_path / "disk", "size=24m") as disk:
        config = {**finished.config, "results": str(disk / "results")}
        project = Project(tmp_path / "work", config)
        for target, free_kb in (("inspect_all", 0), ("preprocess_all", 40), ("train_all", 60), ("all", 24)):
            blocking = fill(disk, free_kb << 10)
            run = project.run(target, cores=2)
            assert run.exit_code == 1, f"{target} fits into {free_kb} kB"
            assert "Traceback" not in run.output, run.output[-4000:]
            messages += sorted(set(re.findall(r"ERROR (.*)$", run.output, re.MULTILINE)))[:1]
            blocking.unlink()
            project.must_run(target, cores=2)
        set_read_only(disk, True)
        assert not project.must_run(cores=2).jobs, "nothing to do needs no writing"
        set_read_only(disk, False)
        (disk / "results" / NAME / "default" / "2d" / "fold_0" / "model.safetensors").unlink()
        set_read_only(disk, True)
        run = project.run("train_all", cores=2)
        assert run.exit_code == 1 and "Write-protected" not in run.output, run.output[-4000:]
        messages += re.findall(r"^.* is read-only: its file system is mounted read-only.*$", run.output, re.MULTILINE)
        assert len(messages) == 5, run.output[-4000:]
        set_read_only(disk, False)
        project.must_run("train_all", cores=2)
        project.must_run(cores=2)
        elsewhere = tmp_path / "compare" / "results"
        shutil.copytree(disk / "results", elsewhere)
        assert products(Project(tmp_path / "compare", config)) == wanted
    for message in messages:
        row.say(quoted([message]))


def _wait(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
