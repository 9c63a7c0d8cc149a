"""Run mutated inputs in a process of their own, and go on after the inputs that end it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.worker import COMPUTING_S, DONE, POSITION, UNPREPARED, Task, keep

ROOT = Path(__file__).resolve().parents[2]
_SIGNALS = {signal.SIGPROF: "hang: computed for too long", signal.SIGALRM: "hang: waited for too long"}


@dataclass
class Outcome:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    used: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    wall_s: float = 0.0


def fuzz(target: str, seed: int, start: int, count: int, folder: Path, computing_s: float = COMPUTING_S) -> Outcome:
    """Use ``count`` inputs; findings are kept in ``folder/findings``, one folder each."""
    outcome, began, next_index, stop = Outcome(target), time.monotonic(), start, start + count
    while next_index < stop:
        task = Task(target, seed, next_index, stop, folder, computing_s)
        code, printed = _run_worker(task)
        position = POSITION.unpack((folder / "position").read_bytes())[0]
        if position == UNPREPARED:
            raise RuntimeError(f"{target}: the unchanged files cannot be made:\n{printed}")
        report = _report(folder)
        outcome.slowest_s = max(outcome.slowest_s, report.get("slowest_s", 0.0))
        outcome.peak_bytes = max(outcome.peak_bytes, report.get("peak_bytes", 0))
        counts: Counter[str] = Counter(report.get("outcomes", {}))
        outcome.used += counts["used"]
        outcome.refused += counts["refused"]
        for finding in report.get("findings", []):
            outcome.findings.append(f"{target} seed {seed} index {finding['index']}: {finding['problem'].strip()}")
        if position == DONE and code == 0:
            outcome.inputs += stop - next_index
            break
        if not any(finding["index"] == position for finding in report.get("findings", [])):
            problem = f"{_ending(code)}\n{printed}"
            keep(folder / "room" / "inputs", task, position, problem)
            outcome.findings.append(f"{target} seed {seed} index {position}: {problem}")
        # Without a report the clean inputs before a crash are counted here: which of the two they were is not known.
        if not report:
            outcome.used += position - next_index
        outcome.inputs += position + 1 - next_index
        next_index = position + 1
    outcome.wall_s = time.monotonic() - began
    return outcome


def _run_worker(task: Task) -> tuple[int, str]:
    """Exit code, and the end of what the process printed."""
    for leftover in ("room", "temporary"):
        shutil.rmtree(task.folder / leftover, ignore_errors=True)
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / "report.json").unlink(missing_ok=True)
    (task.folder / "position").write_bytes(POSITION.pack(UNPREPARED))
    command = [
        sys.executable, "-W", "ignore", "-m", "tests.fuzz.worker", "--target", task.target, "--seed", str(task.seed),
        "--start", str(task.start), "--stop", str(task.stop), "--folder", str(task.folder),
        "--computing-s", str(task.computing_s),
    ]  # fmt: skip
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
    log = task.folder / "printed.txt"
    with log.open("wb") as stream:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **threads}, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            check=False,
        )  # fmt: skip
    stack = task.folder / "stack.txt"
    printed = log.read_text(errors="replace")[-3000:]
    return done.returncode, printed + (stack.read_text()[:3000] if stack.is_file() else "")


def _report(folder: Path) -> dict:
    path = folder / "report.json"
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    return _SIGNALS.get(signal.Signals(-code), f"crash: killed by {signal.Signals(-code).name}")
