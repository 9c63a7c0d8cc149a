"""What a job may use of time and memory."""

from __future__ import annotations

import os
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from tests.unit.training.stored import make_cases, make_plan, write_store

from segwright.core.labels import Labels
from segwright.core.settings import ExecutionSettings, TrainingSettings
from segwright.splits import Fold
from segwright.training.data import open_data
from segwright.training.host_memory import asked_memory_mb, batches_mb, loader_slots, windows_mb
from segwright.training.loader import Source
from segwright.training.machine import seconds_left
from segwright.training.memory import batch_bytes
from segwright.training.memory_limit import raised_memory_mb
from segwright.training.request import TrainingRequest

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


# --- memory of a training's batches -----------------------------------------------------------------------------------

PATCH, WINDOW = 128**3, 205**3  # voxels; a turned patch is read from its loader patch
PLAIN = make_plan((128,) * 3, batch_size=2)
MANY_CHANNELS = replace(PLAIN, num_channels=30)
CASCADE = replace(
    PLAIN,
    labels=Labels((("background", 0), *((f"label_{value}", value) for value in range(1, 118)))),
    previous_stage="3d_lowres",
)


def batch_mb(channels: int) -> float:
    return 2 * PATCH * (4 * channels + 2 * 8 / 7) / 1e6


def test_usual_trainings_ask_for_what_is_set() -> None:
    assert asked_memory_mb(PLAIN, 7, 8000) == asked_memory_mb(make_plan((512, 512), batch_size=12), 7, 8000) == 8000
    assert asked_memory_mb(PLAIN, 7, 24_000) == 24_000
    assert asked_memory_mb(make_plan((32, 32), batch_size=50), 0, 500) == 500


@pytest.mark.parametrize(
    ("workers", "batches", "samples"),
    [
        (0, 4, 1),  # two in the parent, two that a GPU reads
        (1, 10, 1),  # and three slots for training, three for validation
        (7, 16, 7),  # nine and three
        (12, 23, 12),  # fourteen and five
    ],
)
def test_large_batches_count_once_a_slot_and_copy(workers: int, batches: int, samples: int) -> None:
    turned_mb, joined_mb = 4 * 30 * (2 * WINDOW + PATCH) / 1e6, 3 * 4 * 118 * PATCH / 1e6
    many, cascade = batches * batch_mb(30) + samples * turned_mb, batches * batch_mb(118) + samples * joined_mb
    assert batches_mb(MANY_CHANNELS, workers) == ceil(many)
    assert batches_mb(CASCADE, workers) == ceil(cascade)
    assert asked_memory_mb(MANY_CHANNELS, workers, 8000) == max(8000, 4000 + ceil(many))
    assert asked_memory_mb(CASCADE, workers, 8000) == 4000 + ceil(cascade)


def test_slots_are_as_many_and_as_large_as_the_loaders_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = make_cases(4, (18, 18, 18))
    plan, fold = make_plan((16, 16, 16), batch_size=2), Fold("0", ("case_0", "case_1", "case_2"), ("case_3",))
    pools: list[tuple[int, int]] = []

    class NoWorkers:
        def __init__(self, source: Source[Any], workers: int, stall_timeout_s: float) -> None:
            pools.append((workers + 2, source.slot_bytes))

    monkeypatch.setattr("segwright.training.workers.WorkerPool", NoWorkers)
    for workers in (1, 3, 4, 7, 16):
        pools.clear()
        settings = TrainingSettings().resolved()
        data = open_data(
            TrainingRequest(plan, settings, write_store(tmp_path, cases), fold, tmp_path, workers=workers), settings
        )
        assert data.validation is not None
        data.training()
        data.validation()
        assert sum(slots for slots, _ in pools) == loader_slots(workers)
        assert [size_bytes for _, size_bytes in pools] == pytest.approx([batch_bytes(plan)] * 2, rel=0.01)


def test_loader_patches_come_on_top_where_the_gpu_augments() -> None:
    four = replace(PLAIN, num_channels=4)
    windows = 2 * (4 * 4 + 2) * (11 * (WINDOW - PATCH) + 4 * WINDOW) / 1e6
    assert windows_mb(four, 7) == int(windows)
    assert asked_memory_mb(four, 7, 8000, "device") == 8000 + int(windows)
    assert windows_mb(CASCADE, 7) == 0, "the workers augment it"
    assert asked_memory_mb(CASCADE, 7, 8000, "device") == asked_memory_mb(CASCADE, 7, 8000)
