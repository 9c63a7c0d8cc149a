"""What a job may use of time and memory."""

from __future__ import annotations

import os
from pathlib import Path

from segwright.core.settings import ExecutionSettings
from segwright.training.machine import seconds_left
from segwright.training.memory_limit import raised_memory_mb

SLURM = {"SLURM_JOB_ID": "7"}


def test_a_deadline_only_under_a_scheduler_unless_wanted() -> None:
    auto = ExecutionSettings(deadline_margin_min=10)
    assert seconds_left(auto, 60, {}) is None
    assert seconds_left(auto, None, SLURM) is None
    assert seconds_left(auto, 60, SLURM) == 50 * 60
    assert seconds_left(ExecutionSettings(deadline="never"), 60, SLURM) is None
    assert seconds_left(ExecutionSettings(deadline="always", deadline_margin_min=1), 60, {}) == 59 * 60


def test_a_short_job_keeps_half_its_time() -> None:
    assert seconds_left(ExecutionSettings(deadline_margin_min=10), 12, SLURM) == 6 * 60


def test_the_end_slurm_names_counts_where_it_is_sooner() -> None:
    auto = ExecutionSettings(deadline_margin_min=10)
    soon = {**SLURM, "SLURM_JOB_END_TIME": str(1000 + 30 * 60)}
    assert seconds_left(auto, 60, soon, clock=lambda: 1000.0) == 20 * 60
    assert seconds_left(auto, 25, soon, clock=lambda: 1000.0) == 15 * 60
    assert seconds_left(auto, None, soon, clock=lambda: 1000.0) == 20 * 60
    assert seconds_left(auto, 60, soon, clock=lambda: 5000.0) == 0


def write_log(folder: Path, job: int, text: str, at_s: float) -> None:
    path = folder / f"{job}.log"
    path.write_text(text)
    os.utime(path, (at_s, at_s))


def test_memory_is_doubled_for_every_attempt_that_ran_out_of_it(tmp_path: Path) -> None:
    assert raised_memory_mb(8000, tmp_path / "none", since=0) == 8000
    oom = "x" * 50_000 + "\nslurmstepd-n1: error: Detected 1 {} in StepId=2.0. Some of your processes may have been"
    write_log(tmp_path, 1, oom.format("oom-kill event(s)"), at_s=900)
    assert raised_memory_mb(8000, tmp_path, since=1000) == 8000, "that was another run"
    write_log(tmp_path, 2, oom.format("oom-kill event(s)"), at_s=1001)
    assert raised_memory_mb(8000, tmp_path, since=1000) == 16000
    write_log(tmp_path, 3, "slurmstepd: error: *** JOB 3 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", at_s=1002)
    assert raised_memory_mb(8000, tmp_path, since=1000) == 16000, "a time limit is no reason for more"
    write_log(tmp_path, 4, "out of memory? no: 3 epochs done", at_s=1003)
    assert raised_memory_mb(8000, tmp_path, since=1000) == 16000
    write_log(tmp_path, 5, oom.format("oom_kill event"), at_s=1004)
    assert raised_memory_mb(8000, tmp_path, since=1000) == 32000
    for job in range(6, 30):
        write_log(tmp_path, job, oom.format("oom_kill event"), at_s=1005)
    assert raised_memory_mb(8000, tmp_path, since=1000) == 8000 * 32, "it does not grow without end"
