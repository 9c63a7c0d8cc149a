"""Planning takes no noticeable time, and inspecting a dataset little more than reading it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from tests.acceptance.commands import SEGWRIGHT, must
from tests.acceptance.datasets import raw_dataset
from tests.acceptance.recorder import Check

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

CASES = 220
PLAN_LIMIT_S = 0.5
REPEATS = 5


@pytest.mark.parametrize("workers", [1, 2])
def test_inspection(workers: int, check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path) -> None:
    raw = raw_dataset(shared_data, "hippocampus")
    row = check(
        f"6 inspect {workers} worker{'s' * (workers > 1)}", f"`segwright inspect --workers {workers}` on {CASES} cases"
    )
    with row.measured():
        message = must("inspect", "--dataset", raw, "--output", tmp_path / "checks", "--workers", str(workers))
    row.say(f"{CASES} cases, {CASES / row.wall_s:.0f} cases/s")
    assert f"{CASES} of {CASES}" in message
    assert (tmp_path / "checks" / "dataset_fingerprint.json").is_file()


def test_plan(check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path) -> None:
    raw = raw_dataset(shared_data, "hippocampus")
    must("inspect", "--dataset", raw, "--output", tmp_path / "checks")
    row = check("6 plan", f"`segwright plan` on the fingerprint of {CASES} cases, the whole command, {REPEATS} times")
    wall_s, cpu_s = [], []
    for repeat in range(REPEATS):
        command: list[str | Path] = [
            SEGWRIGHT, "plan", "--fingerprint", tmp_path / "checks" / "dataset_fingerprint.json",
            "--dataset-json", raw / "dataset.json", "--output", tmp_path / f"plan_{repeat}",
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall_s.append(time.perf_counter() - started)
        cpu_s.append(used.ru_utime + used.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        row.peak_bytes = max(row.peak_bytes, used.ru_maxrss * 1024)
    row.wall_s = median(wall_s)
    row.say(f"median {row.wall_s:.3f} s ({min(wall_s):.3f} to {max(wall_s):.3f}), {median(cpu_s):.3f} CPU seconds")
    plans = {(tmp_path / f"plan_{repeat}" / "plans.json").read_bytes() for repeat in range(REPEATS)}
    assert len(plans) == 1
    assert row.wall_s < PLAN_LIMIT_S
