"""The process in which mutated inputs are used: it may crash, hang or be killed, and its parent sees why.

Limits: RLIMIT_AS stops allocations, SIGPROF ends an input that computes for too long and SIGALRM one that waits for
too long. Which input is at work stands in a small shared file, so that nothing has to be sent before each of them.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import mmap
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import SegwrightError
from tests.fuzz.target import Sample, rng_of
from tests.fuzz.targets import TARGETS

MEMORY_BYTES = 512 << 20
COMPUTING_S = 5.0
WAITING_S = 300.0  # of the wall: other work on the machine must not look like a hang
MESSAGE_CHARACTERS = 4000
POSITION = struct.Struct("<q")
DONE, UNPREPARED = -1, -2


@dataclass(frozen=True)
class Task:
    """Which inputs to use: ``start <= index < stop``."""

    target: str
    seed: int
    start: int
    stop: int
    folder: Path
    computing_s: float = COMPUTING_S


class Worker:
    """Uses one input after the other, in ``folder/room``, and notes everything that is no clean outcome."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.room = task.folder / "room"
        self.outcomes: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.slowest_s = 0.0

    def run(self, position: mmap.mmap) -> None:
        draw = TARGETS[self.task.target].prepare()
        limit_memory()
        parent = os.getppid()
        for index in range(self.task.start, self.task.stop):
            if os.getppid() != parent:
                raise SystemExit("nobody waits for the result any more")
            POSITION.pack_into(position, 0, index)
            sample = draw(rng_of(self.task.target, self.task.seed, index))
            self._use(index, sample)
        POSITION.pack_into(position, 0, DONE)

    def _use(self, index: int, sample: Sample) -> None:
        inputs = self.room / "inputs"
        for name, content in sample.files.items():
            path = inputs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, self.task.computing_s)
        signal.setitimer(signal.ITIMER_REAL, WAITING_S)
        started = time.process_time()
        problem, kind = None, "used"
        try:
            sample.use(inputs)
        except SegwrightError as error:
            kind, problem = "refused", _fault_of_message(str(error), sample)
        except BaseException:  # whatever it is, it is what this program looks for
            kind, problem = "raised", traceback.format_exc(limit=-12)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.slowest_s = max(self.slowest_s, time.process_time() - started)
        peak_bytes = memory_peak_bytes()
        if problem is None and peak_bytes > MEMORY_BYTES:
            problem = f"the process grew to {peak_bytes >> 20} MiB"
        if problem is None and sorted(path.name for path in self.room.iterdir()) != ["inputs"]:
            problem = f"wrote outside its folder: {sorted(path.name for path in self.room.iterdir())}"
        self.outcomes["finding" if problem else kind] += 1
        if problem:
            self.findings.append({"index": index, "problem": problem})
            keep(inputs, self.task, index, problem)
        for path in self.room.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if peak_bytes > MEMORY_BYTES:
            raise SystemExit(3)  # the peak never falls again: the parent starts a fresh process


def _fault_of_message(message: str, sample: Sample) -> str | None:
    if not any(name in message for name in sample.named):
        return f"the message names none of {sample.named}: {message[:1000]}"
    if len(message) > MESSAGE_CHARACTERS:
        return f"a message of {len(message)} characters: {message[:300]}"
    return None


def keep(inputs: Path, task: Task, index: int, problem: str) -> None:
    """Copy an input to ``folder/findings`` with what it did."""
    kept = task.folder / "findings" / f"{task.target}-{task.seed}-{index}"
    shutil.rmtree(kept, ignore_errors=True)
    if inputs.is_dir():
        shutil.copytree(inputs, kept, symlinks=True)
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "PROBLEM.txt").write_text(problem, errors="backslashreplace")


def memory_peak_bytes() -> int:
    """Peak of this program; getrusage would also count what the parent held when it started this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def limit_memory() -> None:
    """Allow as much address space as is taken now and the limit on top."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    taken = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, taken + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (
        ("target", str),
        ("seed", int),
        ("start", int),
        ("stop", int),
        ("folder", Path),
        ("computing-s", float),
    ):
        parser.add_argument(f"--{name}", type=kind, required=True)
    task = Task(**vars(parser.parse_args()))
    logging.disable()
    worker = Worker(task)
    worker.room.mkdir(parents=True)
    with (task.folder / "stack.txt").open("w") as stacks:  # not stderr: the readers catch what is printed there
        faulthandler.enable(stacks)
        for stop in (signal.SIGPROF, signal.SIGALRM):
            faulthandler.register(stop, stacks, chain=True)
        _run(worker, task)


def _run(worker: Worker, task: Task) -> None:
    tempfile.tempdir = str(task.folder / "temporary")
    Path(tempfile.tempdir).mkdir(exist_ok=True)
    with (task.folder / "position").open("r+b") as stream, mmap.mmap(stream.fileno(), POSITION.size) as position:
        try:
            worker.run(position)
        finally:
            report = {"outcomes": worker.outcomes, "findings": worker.findings, "slowest_s": worker.slowest_s}
            report["peak_bytes"] = memory_peak_bytes()
            (task.folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
