"""Every way a loader process can fail, in a real training: the diagnosis, the case, the end."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from segwright.phantom import make_phantom
from tests.acceptance.recorder import Check, quoted
from tests.acceptance.test_4_kills import SETTINGS, prepare_training
from tests.faults.test_altered_files import flip
from tests.faults.test_storage import mounted

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

STALL_S, LIMIT_S = 12, 240
MEMORY_BYTES = 1536 << 20
MARK = "SEGWRIGHT_ACCEPTANCE_MARK"
GROUP = Path("/sys/fs/cgroup/memory/segwright-acceptance")

PLUGIN = """
import ctypes, os, signal, time
import numpy as np
from segwright.training.augmentation.pipeline import AUGMENTATIONS, Augmentation

class Faulty:
    calls = 0
    def draw(self, rng, shape):
        Faulty.calls += 1
        if Faulty.calls == 5:
            {fault}
        return None

@AUGMENTATIONS.register("faulty")
def faulty(facts):
    return Augmentation(intensity=(Faulty(),))
"""
RUNNER = """
import os, sys, tempfile
import segwright.training.workers as workers
workers.BatchLoader.__init__.__defaults__ = ({stall},)
{before}
from segwright.cli import main
sys.exit(main(sys.argv[1:]))
"""
_CASE = r"at case phantom_\w+ \(epoch \d+, step \d+\)"
FAULTS = {
    "exception": ("raise ZeroDivisionError('a bug')", rf"failed {_CASE}: ZeroDivisionError: a bug"),
    "out-of-memory kill": (
        "hog = []\n            while True: hog.append(np.ones(1 << 24))",
        rf"died {_CASE}: it was ended by signal 9 \(SIGKILL\): out of memory, the kernel's out-of-memory killer struck",
    ),
    "segmentation fault": ("ctypes.string_at(0)", rf"died {_CASE}: .*SIGSEGV\): a crash inside compiled code"),
    "hang": ("time.sleep(9999)", rf"no batch came for {STALL_S} s and no worker is doing anything \(.*{_CASE}"),
}


def test_six_faults_six_diagnoses(check: Callable[[str, str], Check], tmp_path: Path) -> None:
    row = check(
        "7 worker faults",
        "`segwright train` of 3d_fullres on phantoms, two loader processes; a plugin's augmentation fails in each way "
        f"(memory limited to {MEMORY_BYTES >> 20} MiB by a control group, hang after {STALL_S} s instead of 600)",
    )
    raw = make_phantom("plain", 8, seed=1, output=tmp_path / "Dataset900_Phantom", test_cases=1)
    command = prepare_training(raw, tmp_path)
    with row.measured():
        for fault, (statement, expected) in FAULTS.items():
            group = limited_memory() if fault == "out-of-memory kill" else contextlib.nullcontext()
            with group as enter:
                row.say(_train(tmp_path, command, fault, expected, plugin=statement, enter=enter))
        with mounted(tmp_path / "small", "size=64k") as small:
            before = f"del os.memfd_create; tempfile.tempdir = {str(small)!r}"
            expected = r"MiB of shared memory for batches: shared memory or a disk is full"
            row.say(_train(tmp_path, command, "shared memory full", expected, before=before))
        stored = sorted((tmp_path / "store").rglob("cases/phantom_*.safetensors"))[-1]
        flip(stored, stored.stat().st_size // 2, 0)
        expected = rf"{re.escape(stored.name)}: case phantom_\w+: its content is not what .* recorded; delete "
        row.say(_train(tmp_path, command, "damaged case", expected))


def _train(
    folder: Path,
    command: tuple[str | Path, ...],
    fault: str,
    expected: str,
    plugin: str = "",
    before: str = "",
    enter: Callable[[], None] | None = None,
) -> str:
    """Train with the fault; gives the diagnosis. Nothing may be left running, and it must not take long."""
    output, options = folder / fault.replace(" ", "_"), []
    if plugin:
        (folder / "faulty.py").write_text(PLUGIN.format(fault=plugin))
        settings = {**SETTINGS, "training": {**SETTINGS["training"], "augmentation": "faulty"}}
        (folder / "faulty.yaml").write_text(yaml.safe_dump(settings))
        options = ["--plugin", folder / "faulty.py", "--settings", folder / "faulty.yaml"]
    runner = [sys.executable, "-c", RUNNER.format(stall=STALL_S, before=before)]
    started = time.monotonic()
    process = subprocess.Popen(
        [*runner, *command[1:], *options, "--output", output],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enter,
        env={**os.environ, MARK: str(output)},
    )
    _, messages = process.communicate(timeout=LIMIT_S)
    seconds = time.monotonic() - started
    assert process.returncode == 2, messages[-3000:]
    assert re.search(expected, messages), messages[-3000:]
    traceback = "Traceback" in messages
    assert traceback == (fault == "exception"), messages[-3000:]  # a bug shows where it is, all else does not
    assert not marked(str(output)), "processes are left"
    diagnosis = next(line for line in messages.splitlines() if re.search(expected, line))
    return f"{fault}, {seconds:.0f} s: {quoted([diagnosis.strip()])}"


def marked(value: str) -> list[psutil.Process]:
    """The processes that were started with this mark in their environment, orphans too."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == value:
                found.append(process)
    return found


@contextlib.contextmanager
def limited_memory() -> Iterator[Callable[[], None]]:
    """A control group with little memory; gives what a process does to enter it."""
    try:
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(MEMORY_BYTES))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield lambda: (GROUP / "cgroup.procs").write_text(str(os.getpid())) and None  # type: ignore[func-returns-value]
    finally:
        GROUP.rmdir()
