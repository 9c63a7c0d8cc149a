"""A fold started twice: on one host, on two, and beside an orphan. And what is left of the dead is taken over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segwright.core.errors import TrainingError
from segwright.core.files import file_digest, read_json
from segwright.training import lock
from segwright.training.fold import run_training
from segwright.training.lock import FolderLock
from tests.unit.training.fake_training import make_data, make_request, train

HOLDER = """
import sys, time, platform
from pathlib import Path
from segwright.training import lock
lock._TOUCH_EVERY_S = 0.05
if sys.argv[2] != "here":
    platform.node = lambda: sys.argv[2]
with lock.FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold() -> Iterator[object]:
    """Start a process that holds a folder on a named host; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, host: str = "here") -> subprocess.Popen[str]:
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), host], stdout=subprocess.PIPE, text=True)
        started.append(holder)
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in started:
        holder.kill()
        holder.wait()


def test_a_second_training_of_a_fold_refuses_and_says_who_since_when(tmp_path: Path, hold: object) -> None:
    holder = hold(tmp_path / "state")  # type: ignore[operator]
    owner = read_json(tmp_path / "state" / "owner.json")
    message = (
        rf"host {owner['host']}, process {holder.pid}, since {owner['since'][:10]}.*; wait until it ends, or end it"
    )
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(TrainingError, match=message):
        run_training(make_request(tmp_path), make_data(), {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == before  # it touched nothing
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert train(tmp_path) == train(tmp_path / "straight")  # the dead owner's lock is taken over


@pytest.mark.parametrize("shared_locks", [True, False], ids=["locks seen by both hosts", "locks of one host only"])
def test_another_host(
    tmp_path: Path, hold: object, shared_locks: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    holder = hold(tmp_path, "other-host")  # type: ignore[operator]
    monkeypatch.setattr(lock, "_WATCH_S", 1.5)
    if not shared_locks:  # Lustre or NFS with local locking: the kernel here knows nothing of the other's lock
        monkeypatch.setattr(lock, "_locked", lambda descriptor: True)
    with pytest.raises(TrainingError, match=f"host other-host, process {holder.pid}, since 20"), FolderLock(tmp_path):
        pass
    assert read_json(tmp_path / "owner.json")["host"] == "other-host"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    with caplog.at_level("INFO"), FolderLock(tmp_path):
        assert read_json(tmp_path / "owner.json")["pid"] == os.getpid()
    assert "taking over" in caplog.text and 1.0 < time.monotonic() - started < 10


def test_an_owner_that_finishes_meanwhile_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_WATCH_S", 5.0)
    monkeypatch.setattr(lock, "_locked", lambda descriptor: True)
    finishing = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace("sleep(60)", "sleep(1.0)"), str(tmp_path), "other"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert finishing.stdout is not None and finishing.stdout.readline() == "held\n"
    monkeypatch.setattr(lock, "_touched_at", lambda path: 1 if path.exists() else None)
    with FolderLock(tmp_path):
        assert finishing.wait(timeout=10) == 0


def test_an_orphan_that_finishes_leaves_a_finished_training(tmp_path: Path) -> None:
    """Snakemake was killed, its training went on to the end: the next command finds it done, and equal."""
    straight = train(tmp_path / "straight")
    orphan = os.fork()
    if orphan == 0:
        with contextlib.suppress(BaseException):
            train(tmp_path / "run")
            os._exit(0)
        os._exit(1)
    refused = 0
    while not (tmp_path / "run" / "state" / "owner.json").exists():
        time.sleep(0.01)
    while True:
        try:
            again = train(tmp_path / "run")
            break
        except TrainingError as error:
            assert f"process {orphan}" in str(error)
            refused += 1
            time.sleep(0.05)
    assert os.waitpid(orphan, 0)[1] == 0
    assert again == straight == file_digest(tmp_path / "run" / "model.safetensors")
    assert refused and read_json(tmp_path / "run" / "state" / "attempts.json")[-1]["epochs_at_start"] == 6
