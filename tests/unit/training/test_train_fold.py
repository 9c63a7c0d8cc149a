"""``train_fold`` on stored cases, through loader processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.training.stored import LABELS, make_cases, make_plan, write_store

from segwright.core.errors import DamagedFileError, InterruptedForRetry, TrainingError
from segwright.core.files import file_digest, read_json, write_json
from segwright.core.labels import Labels
from segwright.core.recorded import RecordedFile
from segwright.core.settings import TrainingSettings
from segwright.networks.weights import load_weights
from segwright.splits import Fold
from segwright.training.fold import train_fold
from segwright.training.request import TrainingRequest

PATCH = (8, 12, 8)
SETTINGS = TrainingSettings(schedule="smoke", epochs=2, iterations=2, torch_threads=1, seed=1)
FOLD = Fold("0", ("case_0", "case_1", "case_2"), ("case_3",))
ROOT = Path(__file__).resolve().parents[3]


pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"), make_cases(4, (14, 18, 16)))


def request(index: Path, output: Path, **changes: Any) -> TrainingRequest:
    return replace(TrainingRequest(make_plan(PATCH, batch_size=2), SETTINGS, index, FOLD, output), **changes)


def test_the_number_of_workers_never_changes_the_weights(index: Path, tmp_path: Path) -> None:
    digests = set()
    for workers in (0, 2):
        output = tmp_path / str(workers)
        train_fold(request(index, output, workers=workers))
        digests.add(file_digest(output / "model.safetensors"))
        record = read_json(output / "training.json")
        assert record["data_id"] == "test" and record["mirror_axes"] == [0, 1, 2]
        assert math.isfinite(record["metrics"]["val_loss"])
    assert len(digests) == 1


def test_a_changed_case_starts_a_new_training(tmp_path: Path) -> None:
    cases = make_cases(4, (14, 18, 16))
    output = tmp_path / "fold_0"
    train_fold(request(write_store(tmp_path / "store", cases), output))
    cases["case_1"] = (cases["case_1"][0] + 1, cases["case_1"][1])
    train_fold(request(write_store(tmp_path / "store", cases), output))
    assert (tmp_path / "fold_0" / "state.stale-1").is_dir()


@pytest.mark.parametrize("ignore", [False, True])
def test_regions(tmp_path: Path, ignore: bool) -> None:
    entries: tuple = (("background", 0), ("whole", (1, 2)), ("core", (2,)))
    labels = Labels((*entries, ("ignore", 3)) if ignore else entries, (1, 2))
    cases = make_cases(4, (14, 18, 16))
    if ignore:
        for _, label_zyx in cases.values():
            label_zyx[:4] = 3
    index = write_store(tmp_path, cases, [(1, 2), (2,), (-1, 0, 1, 2)] if ignore else [(1, 2), (2,)])
    train_fold(request(index, tmp_path / "fold_0", plan=make_plan(PATCH, labels, batch_size=2)))
    record = read_json(tmp_path / "fold_0" / "training.json")
    assert record["num_outputs"] == 2 and len(record["metrics"]["dice_per_class"]) == 2
    assert math.isfinite(record["metrics"]["val_loss"])


def cascade(folder: Path, empty: str | None = None) -> dict[str, Any]:
    """What a request for a cascade needs besides stored cases: its plan, and the label maps of the stage before it."""
    maps = {}
    for case_id, (_, label_zyx) in make_cases(4, (14, 18, 16)).items():
        np.save(folder / f"{case_id}.npy", label_zyx.astype(np.uint8) * (case_id != empty))
        maps[case_id] = {"file": f"{case_id}.npy", "digest": file_digest(folder / f"{case_id}.npy")}
    write_json(folder / "next_stage.json", {"version": 1, "target": {"3d_cascade_fullres": maps}})
    plan = make_plan(PATCH, batch_size=2, configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    return {"plan": plan, "next_stage": folder / "next_stage.json"}


def test_cascade_gets_a_channel_for_each_label_and_its_maps_are_in_the_stamp(index: Path, tmp_path: Path) -> None:
    train_fold(request(index, tmp_path / "fold_0", **cascade(tmp_path)))
    weights = load_weights(tmp_path / "fold_0" / "model.safetensors")
    assert weights["encoder.stages.0.0.convs.0.conv.weight"].shape[1] == 1 + len(LABELS.foreground_labels)
    before = read_json(tmp_path / "fold_0" / "training.json")["data"]["previous_stage"]
    changes = cascade(tmp_path, empty="case_0")
    train_fold(request(index, tmp_path / "fold_0", **changes))
    assert read_json(tmp_path / "fold_0" / "training.json")["data"]["previous_stage"] != before
    with pytest.raises(TrainingError, match="previous stage 3d_lowres are missing"):
        train_fold(request(index, tmp_path / "other", plan=changes["plan"]))


def test_label_maps_of_the_previous_stage_are_compared_once_before_training(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def counting(path: Path) -> str:
        compared.append(path.name)
        return file_digest(path)

    monkeypatch.setattr("segwright.core.recorded.file_digest", counting)
    monkeypatch.setattr("segwright.training.loader._OPEN_CASES", 1)  # as with more cases than files may be open
    changes = cascade(tmp_path)
    train_fold(request(index, tmp_path / "fold_0", **changes))
    assert sorted(name for name in compared if name.endswith(".npy")) == [f"case_{number}.npy" for number in range(4)]
    assert len(compared) == 8  # and each stored case once
    (tmp_path / "case_3.npy").write_bytes((tmp_path / "case_2.npy").read_bytes())
    with pytest.raises(
        DamagedFileError, match=r"case case_3: its content is not what .* recorded; delete .*next_stage"
    ):
        train_fold(request(index, tmp_path / "fold_1", **changes))
    assert not list((tmp_path / "fold_1" / "state").glob("epoch_*"))


@pytest.mark.parametrize("reason", ["SIGTERM", "before the time limit"])
def test_a_training_that_has_to_end_while_cases_are_checked_goes_on_with_the_next_case(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    verify, checked = RecordedFile.verify, []

    def ending(file: RecordedFile) -> Path:
        checked.append(file.case_id)
        verify(file)
        if reason == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        return file.path

    monkeypatch.setattr(RecordedFile, "verify", ending)
    output = tmp_path / "fold_0"
    for attempt in range(4):
        checked.clear()
        with pytest.raises(InterruptedForRetry, match=rf"{reason}.*0 of 2 epochs saved"):
            train_fold(request(index, output, deadline=None if reason == "SIGTERM" else 0.0))
        assert checked[0] == f"case_{attempt}"
    checked.clear()
    train_fold(request(index, output))
    assert checked == []
    ends = [(attempt["ended"], attempt["checking"]) for attempt in read_json(output / "state" / "attempts.json")]
    assert ends == [("interrupted", True)] * 4 + [("finished", False)]


TRAIN = """
import sys
from pathlib import Path
from tests.unit.training import test_train_fold as t
from segwright.training import history
from segwright.training.fold import train_fold
from segwright.core.errors import SegwrightError
history.draw_progress = lambda path, records: path.write_bytes(b"figure")
try:
    settings = t.replace(t.SETTINGS, epochs=int(sys.argv[3]))
    train_fold(t.request(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, settings=settings))
except SegwrightError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_with_workers_ends_and_goes_on(index: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The signal goes to the whole process group, as a scheduler sends it; no worker survives it."""
    output = tmp_path / "fold_0"
    command = [sys.executable, "-c", TRAIN, str(index), str(output), "300"]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while not (output / "state" / "epoch_000002.json").exists():
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL), errors
    if number == signal.SIGTERM:
        assert "SIGTERM" in errors
    settings = replace(SETTINGS, epochs=300)
    with pytest.raises(InterruptedForRetry):  # takes the lock over, goes on, and ends at once
        train_fold(request(index, output, settings=settings, deadline=0.0))
    attempts = read_json(output / "state" / "attempts.json")
    assert [a["ended"] for a in attempts] == ["killed" if number == signal.SIGKILL else "interrupted", "interrupted"]
    assert attempts[1]["epochs_at_start"] >= 2
