"""CPU seconds, wall seconds and peak memory of commands and of functions, each in a process of its own.

CPU seconds are user and system time of the process and of all children it waited for. Peak memory is the larger of the
greatest sum of proportional set sizes (PSS) over the process tree, sampled, and of the greatest resident size (VmHWM)
any single process of it reached, which the kernel keeps and no sampling misses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
_SAMPLING_S = 0.1
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class Measurement:
    """What one run took.

    Attributes:
        cpu_s: user and system seconds, children included.
        memory_mib: peak of the process tree, see above.
    """

    cpu_s: float
    wall_s: float
    memory_mib: float


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a measured process: one thread, this checkout importable."""
    paths = [str(ROOT), str(ROOT / "src")]
    return {
        **os.environ,
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": os.pathsep.join(paths),
        **(more or {}),
    }


def run_command(command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> Measurement:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message ends with the last lines it wrote.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], env=environment(variables), stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            with MemoryOfTree(process.pid) as memory:
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill_session(process)
            raise
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()[-30:]
            raise RuntimeError("\n".join([f"{command} ended with {process.returncode}", *lines]))
    return Measurement(usage.ru_utime + usage.ru_stime, wall_s, memory.peak_mib)


class Worker:
    """A process of one of the two environments that calls a function again and again.

    Args:
        python: the interpreter of the environment.
        function: ``module:name``; called once with ``arguments`` and gives the function that is measured.
        arguments: JSON values.
    """

    def __init__(
        self, python: Path, function: str, arguments: Mapping[str, Any], variables: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.worker"], env=environment(variables), text=True, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._ask({"function": function, "arguments": dict(arguments)})

    def call(self, save: Path | None = None) -> Measurement:
        """Call the function; ``save`` is a path without ending for its result (.npy or .json)."""
        with MemoryOfTree(self._process.pid) as memory:
            answer = self._ask({"call": True, "save": None if save is None else str(save)})
        return Measurement(answer["cpu_s"], answer["wall_s"], max(memory.peak_mib, answer["peak_mib"]))

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        _kill_session(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the worker ended with {self._process.wait()}"}
        if "error" in answer:
            self.close()
            raise RuntimeError(answer["error"])
        return answer


class MemoryOfTree:
    """Samples a process and its descendants while the block runs."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak_mib = pid, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLING_S):
            pids = _tree(self.pid)
            together = sum(_proc_kib(pid, "smaps_rollup", "Pss:") for pid in pids)
            largest = max((_proc_kib(pid, "status", "VmHWM:") for pid in pids), default=0)
            self.peak_mib = max(self.peak_mib, together / 1024, largest / 1024)


def emptied(folder: Path) -> Path:
    """The folder, without what was in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _tree(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return found


def _proc_kib(pid: int, file: str, name: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except OSError:  # the process has just ended
        pass
    return 0


def _kill_session(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        process.wait()
