"""The process in which one side of a pair runs its function; see :class:`benchmarks.measure.Worker`.

Reads one JSON request a line and answers with one JSON object a line. Runs in either environment, so it imports neither
program; what the functions print goes to standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    function: Callable[[], Any] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "function" in request:
                module, name = request["function"].split(":")
                function = getattr(importlib.import_module(module), name)(**request["arguments"])
                answer: dict[str, Any] = {"ready": True}
            else:
                assert function is not None
                answer = call(function, request["save"])
        except Exception:  # told to the other process, which raises
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def call(function: Callable[[], Any], save: str | None) -> dict[str, float]:
    gc.collect()
    _forget_peak()
    before, started = _cpu_s(), time.perf_counter()
    result = function()
    wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - before
    peak_mib = _peak_mib()
    if save is not None:
        _write(result, Path(save))
    return {"cpu_s": cpu_s, "wall_s": wall_s, "peak_mib": peak_mib}


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _forget_peak() -> None:
    """Let VmHWM count from the present size on."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _write(result: Any, path: Path) -> None:
    """Keep a result; a function gives it now, so that getting it ready is not measured."""
    if callable(result):
        result = result()
    if isinstance(result, np.ndarray):
        np.save(path.with_suffix(".npy"), result)
    elif isinstance(result, dict) and all(isinstance(value, np.ndarray) for value in result.values()):
        np.savez(path.with_suffix(".npz"), **result)
    else:
        path.with_suffix(".json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
