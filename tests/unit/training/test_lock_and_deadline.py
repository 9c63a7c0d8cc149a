"""Locks outlive nobody; deadlines and attempts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segwright.core.errors import InterruptedForRetry, TrainingError
from segwright.core.files import read_json, write_json
from segwright.training.attempts import Attempts
from segwright.training.deadline import Deadline, StopSignal
from segwright.training.lock import FolderLock

HOLD = """
import sys, time
from pathlib import Path
from segwright.training.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_owner_is_taken_over_and_a_living_one_is_named(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=f"process {holder.pid}, since 20"), FolderLock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert read_json(tmp_path / "owner.json")["pid"] == holder.pid
    with FolderLock(tmp_path):
        assert read_json(tmp_path / "owner.json")["pid"] == os.getpid()
    assert not (tmp_path / "owner.json").exists()


def test_forked_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path).__enter__()
    ready, child_says = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(child_says, b".")
        time.sleep(60)
        os._exit(0)
    assert os.read(ready, 1) == b"."
    lock.close_in_child()  # closes without unlocking, as the kernel does for a killed process
    try:
        with FolderLock(tmp_path):  # the child lives, and does not hold it
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_deadline_by_a_given_clock() -> None:
    now = [0.0]
    deadline = Deadline.after(100.0, lambda: now[0])
    assert deadline.fits(None) and deadline.fits(80.0) and not deadline.fits(90.0)
    now[0] = 100.0
    assert not deadline.fits(None) and deadline.remaining_s == 0
    assert Deadline.after(None).fits(1e9)


def test_signals_only_raise_a_flag_inside_the_context() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.received == "SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) == before
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with StopSignal():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not errors


def test_attempts_classify_how_they_ended(tmp_path: Path) -> None:
    endings = [
        InterruptedForRetry("time"),
        TrainingError("nan"),
        KeyboardInterrupt(),
        MemoryError("host"),
        KeyError("x"),
    ]
    for number, error in enumerate(endings):
        attempts = Attempts(tmp_path)
        attempts.begin(number)
        with pytest.raises(type(error)), attempts:
            attempts.saved(number + 1)
            raise error
    killed = Attempts(tmp_path)
    killed.begin(5)
    killed.saved(6)
    last = Attempts(tmp_path)
    assert last.begin(6).number == 7
    kinds = [attempt.ended for attempt in last.all]
    assert kinds == ["interrupted", "error", "keyboard", "out_of_memory", "error", "killed", None]
    assert "kill -9" in last.all[5].cause and last.all[5].peak_memory_mb > 0


def test_damaged_attempts_only_lose_the_count(tmp_path: Path) -> None:
    (tmp_path / "attempts.json").write_text("{")
    assert Attempts(tmp_path).begin(0).number == 1
    write_json(tmp_path / "attempts.json", [{"strange": 1}])
    assert Attempts(tmp_path).begin(0).number == 1
