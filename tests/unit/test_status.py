"""``segwright status``: what is done, running and failed, read from folders in any state."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from segwright import status
from segwright.core.configfile import load_settings
from segwright.core.errors import SettingsError
from segwright.core.files import write_json, write_text
from segwright.status import duration_text, status_lines


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")  # the checkout may hold locks of its own


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run in the middle: data done, one training done, others in every other state."""
    root = tmp_path / "results"
    data, pipeline = root / "Dataset001_X" / "data", root / "Dataset001_X" / "default"
    problems = [{"severity": "warning"}, {"severity": "warning"}]
    write_json(data / "checks.json", {"cases": ["a", "b"], "problems": problems})
    write_json(data / "dataset_fingerprint.json", {})
    write_json(data / "splits/splits.json", [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}])
    write_json(data / "splits/fold_all.json", {})
    for store, batches in (("2d-aa", ["batch_0.json", "batch_1.json", "index.json"]), ("3d-bb", ["batch_0.json"])):
        for name in batches:
            write_json(data / "preprocessed" / store / name, {"cases": {f"{name}_case": {}}})
    write_json(pipeline / "plan/configurations.json", {"configurations": {"2d": {}, "3d_fullres": {}}})
    return root


def fold(results: Path, name: str, epochs: int = 2, total: int | None = 1000, **files: Any) -> Path:
    """A training's folder; ``files`` are named with ``__`` for ``/`` and get ``.json``."""
    folder = results / "Dataset001_X" / "default" / name
    rows = [json.dumps({"epoch": epoch, "remaining_s": 100.0 * (80 - epoch)}) + "\n" for epoch in range(epochs)]
    write_text(folder / "training.jsonl", "".join(rows))
    if total is not None:
        write_json(folder / "state/stamp.json", {"settings": {"epochs": total}})
    for key, value in files.items():
        write_json(folder / f"{key.replace('__', '/')}.json", value)
    return folder


def owner(**changes: Any) -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": platform.node(), "pid": os.getpid(), "job": None, "since": since, **changes}


def line_of(results: Path, start: str) -> str:
    (line,) = [line.strip() for line in status_lines(results) if line.strip().startswith(start)]
    return line


def text_of(results: Path, start: str) -> str:
    return line_of(results, start).removeprefix(start).strip()


def test_the_data(results: Path) -> None:
    assert status_lines(results)[0] == "Dataset001_X"
    assert text_of(results, "checks") == "done, 2 cases, 0 errors, 2 warnings"
    assert text_of(results, "folds") == "done, 2"
    assert text_of(results, "fingerprint") == "done"
    lines = [line.strip() for line in status_lines(results) if "preprocessed" in line]
    assert [line.removeprefix("preprocessed").strip() for line in lines] == [
        "2d-aa: done, 2 cases",
        "3d-bb: 1 cases so far",
    ]
    assert text_of(results, "plan") == "done: 2d, 3d_fullres"


def test_bad_data_say_where_to_look(results: Path) -> None:
    data = results / "Dataset001_X/data"
    write_json(data / "checks.json", {"cases": ["a"], "problems": [{"severity": "error"}]})
    assert text_of(results, "checks") == f"FAILED, 1 cases, 1 errors, 0 warnings: see {data / 'checks.tsv'}"
    (data / "checks.json").unlink()
    write_json(data / "inspection/batch_0.json", {})
    write_json(data / "inspection/batches.json", {})
    assert text_of(results, "checks") == "not yet (1 batches inspected)"


def test_a_finished_training(results: Path) -> None:
    folder = fold(results, "2d/fold_0", training={"epochs": 6})
    assert text_of(results, "2d fold 0") == "trained, 6 epochs; not validated yet"
    write_text(folder / "validation/.part-1-b.nii.gz", "")
    write_text(folder / "validation/a.nii.gz", "")
    assert text_of(results, "2d fold 0") == "trained, 6 epochs; validation: 1 cases so far"
    write_json(folder / "validation.json", {"cases": {"a": {}, "b": {}}})
    assert text_of(results, "2d fold 0") == "trained, 6 epochs; validated on 2 cases"


def test_a_training_that_is_no_longer_planned(results: Path) -> None:
    for name in ("2d/fold_1", "2d/fold_2", "3d_lowres/fold_0"):
        fold(results, name, state__attempts=[{"ended": "error", "cause": "bad"}])
    told = "FAILED (error) after 2 of 1000 epochs: bad"
    assert text_of(results, "2d fold 1") == told
    assert text_of(results, "2d fold 2") == text_of(results, "3d_lowres fold 0") == f"{told} (no longer planned)"


def test_only_what_is_configured(results: Path) -> None:
    write_json(results / "Dataset002_Y/data/checks.json", {})
    write_json(results / "Dataset001_X/gone/plan/configurations.json", {})
    lines = status_lines(results)
    assert "Dataset002_Y" in lines and "  pipeline gone" in lines
    shown = status_lines(results, load_settings({"datasets": {"Dataset001_X": {"path": "x"}}}))
    assert "Dataset001_X" in shown and "  pipeline default" in shown
    assert "Dataset002_Y" not in shown and "  pipeline gone" not in shown


def test_a_running_training(results: Path) -> None:
    who = owner()
    fold(results, "2d/fold_0", epochs=10, state__owner=who, state__attempts=[{"ended": None}])
    assert text_of(results, "2d fold 0") == (
        f"running, 10 of 1000 epochs, 1 h 58 min left (host {who['host']}, process {who['pid']}, since {who['since']})"
    )
    fold(results, "2d/fold_0", epochs=0, state__owner=owner(job="77"))
    assert "running, 0 of 1000 epochs (host" in line_of(results, "2d fold 0")
    assert ", job 77, since" in line_of(results, "2d fold 0")


def test_an_owner_that_is_gone(results: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    later = datetime.now(UTC) - timedelta(days=400)  # this process is younger: the number was given again
    for gone in (
        owner(pid=process.pid),
        owner(pid=os.getpid(), since=later.isoformat()),
        owner(pid="x"),
        owner(pid=-5),
    ):
        fold(results, "2d/fold_0", state__owner=gone, state__attempts=[{"ended": None}])
        assert text_of(results, "2d fold 0") == "KILLED after 2 of 1000 epochs; run again to continue"


def test_an_owner_on_another_machine_is_believed_but_watched(results: Path) -> None:
    folder = fold(results, "2d/fold_0", state__owner=owner(host="gpu07", pid=1))
    assert "(host gpu07, process 1, since" in line_of(results, "2d fold 0")
    assert "look" not in line_of(results, "2d fold 0")
    old = time.time() - 3 * 3600
    os.utime(folder / "training.jsonl", (old, old))
    assert "no epoch for 3 h 0 min, so look whether it still runs" in line_of(results, "2d fold 0")


@pytest.mark.parametrize(
    ("ended", "cause", "expected"),
    [
        ("error", "ValueError: bad\nmore", "FAILED (error) after 2 of 1000 epochs: ValueError: bad"),
        ("error", "", "FAILED (error) after 2 of 1000 epochs: no cause was recorded"),
        ("out_of_memory", "too large", "FAILED (out of memory) after 2 of 1000 epochs: too large"),
        ("interrupted", "signal", "interrupted after 2 of 1000 epochs; run again to continue"),
        ("keyboard", "", "interrupted after 2 of 1000 epochs; run again to continue"),
        ("killed", "kill -9", "KILLED after 2 of 1000 epochs; run again to continue"),
        (None, "", "KILLED after 2 of 1000 epochs; run again to continue"),
        ("finished", "", "not finished, 2 of 1000 epochs; run again to continue"),
    ],
)
def test_why_a_training_stopped(results: Path, ended: str | None, cause: str, expected: str) -> None:
    attempts = [{"ended": "finished", "cause": "old"}, {"ended": ended, "cause": cause}]
    fold(results, "3d_fullres/fold_all", state__attempts=attempts)
    assert text_of(results, "3d_fullres fold all") == expected


def test_a_torn_last_epoch_is_left_out(results: Path) -> None:
    folder = fold(results, "2d/fold_0", epochs=3, total=None)
    with (folder / "training.jsonl").open("a") as stream:
        stream.write('{"epoch": 3, "tr')
    assert text_of(results, "2d fold 0") == "not finished, 3 epochs; run again to continue"


def test_products(results: Path) -> None:
    pipeline = results / "Dataset001_X" / "default"
    write_json(pipeline / "2d/crossval/summary.json", {"foreground_mean": {"Dice": 0.51234}})
    assert text_of(results, "2d cross-validated") == "mean Dice 0.5123"
    write_json(pipeline / "selection/selection.json", {"best": "2d", "scores": {"2d": 0.75}})
    write_json(pipeline / "postprocessing.json", {"rules": [{}]})
    write_json(pipeline / "final/manifest.json", {"cases": {"t": {}}})
    write_text(pipeline / "model.zip", "")
    write_json(pipeline / "model/model.json", {})
    write_text(pipeline / "report.html", "")
    assert text_of(results, "selected") == "2d (mean Dice 0.7500)"
    assert text_of(results, "postprocessing") == "decided, 1 rules"
    assert text_of(results, "test images") == f"1 segmented: {pipeline / 'final'}"
    assert text_of(results, "model") == str(pipeline / "model")
    assert text_of(results, "archive") == str(pipeline / "model.zip")
    assert text_of(results, "report") == str(pipeline / "report.html")
    assert not any("cross-validated" in line for line in status_lines(results))


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert status_lines(tmp_path / "empty") == [f"{tmp_path / 'empty'}: nothing has been made yet"]
    with pytest.raises(SettingsError, match="there is no such results folder"):
        status_lines(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "less than a minute"), (29, "less than a minute"), (60, "1 min"), (3540, "59 min"), (3600, "1 h 0 min"),
     (47 * 3600, "47 h 0 min"), (49 * 3600, "2 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration_text(seconds) == shown


# --- Snakemake's lock -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["results", "cwd"])
def test_a_lock_without_snakemake_says_the_command(results: Path, tmp_path: Path, where: str) -> None:
    folder = tmp_path if where == "results" else tmp_path / "cwd"
    (folder / ".snakemake/locks").mkdir(parents=True)
    assert not any("lock" in line for line in status_lines(results))
    (folder / ".snakemake/locks/0.input.lock").touch()
    text = " ".join(status_lines(results)[-3:])
    assert f"Snakemake holds a lock in {folder}" in text and "`snakemake --unlock`" in text


def test_a_running_snakemake_is_recognised(results: Path, tmp_path: Path) -> None:
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    program = tmp_path / "snakemake"
    program.write_text("print('up', flush=True)\ninput()\n")
    with subprocess.Popen(
        [sys.executable, program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        assert status_lines(results)[-1] == f"Snakemake is running in {tmp_path} (process {process.pid})."
        process.communicate("\n")
    assert "`snakemake --unlock`" in " ".join(status_lines(results)[-3:])


# --- half-written folders ---------------------------------------------------------------------------------------------


def test_damaged_results_never_stop_it(results: Path, tmp_path: Path) -> None:
    """Every JSON file in turn truncated, or replaced by JSON of another form; and all of them at random."""
    fold(results, "2d/fold_0", training={"epochs": 6}, validation={"cases": {"a": {}}})
    fold(results, "2d/fold_1", state__owner=owner(), state__attempts=[{"ended": None}])
    fold(results, "3d_fullres/fold_0", state__attempts=[{"ended": "error", "cause": "x"}])
    pipeline = results / "Dataset001_X" / "default"
    write_json(pipeline / "2d/crossval/summary.json", {"foreground_mean": {"Dice": 0.5}})
    write_json(pipeline / "selection/selection.json", {"best": "2d", "scores": {"2d": 0.75}})
    write_json(pipeline / "postprocessing.json", {"rules": [{}]})
    write_json(pipeline / "final/manifest.json", {"cases": {"t": {}}})
    names = [path.relative_to(results) for path in sorted(results.rglob("*.json*")) if path.is_file()]
    assert len(names) > 15
    contents = (b"", b"{", b"[]", b"{}", b"null", b"3", b'"x"', b"[null]", b'[{"ended": 3, "cause": 4}]', b"\xff\x00",
                b'{"cases": 3, "problems": [3], "settings": [], "scores": 3, "rules": 3, "configurations": 3}',
                b'{"foreground_mean": {"Dice": "high"}, "pid": {}, "host": 3, "best": [], "epoch": null}')  # fmt: skip
    whole = tmp_path / "whole"
    shutil.copytree(results, whole)
    for name in names:
        before = (results / name).read_bytes()
        for content in (*contents, before[: len(before) // 2]):
            (results / name).write_bytes(content)
            assert status_lines(results)[0] == "Dataset001_X", (name, content)
        (results / name).write_bytes(before)
    draw = random.Random(0)
    for _ in range(50):
        for name in names:
            (results / name).write_bytes(draw.choice((*contents, (whole / name).read_bytes())))
        assert status_lines(results)[0] == "Dataset001_X"


def test_missing_folders_and_files_in_place_of_folders(results: Path) -> None:
    write_text(results / "Dataset001_X/stray.txt", "")
    write_text(results / "stray.txt", "")
    write_text(results / "Dataset001_X/default/2d/fold_9", "no folder")
    (results / "Dataset002_Y/data").mkdir(parents=True)
    (results / "Dataset002_Y/default").mkdir()
    lines = status_lines(results)
    assert "Dataset002_Y" in lines and "    plan                       not yet" in lines
    assert not any("stray" in line or "fold 9" in line for line in lines)


def test_it_starts_without_heavy_libraries() -> None:
    code = "import sys, segwright.status; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "SimpleITK", "matplotlib"}.isdisjoint(done.stdout.split())
    assert status.__doc__ is not None
