"""Jobs that share a machine's GPUs through lock files: real processes, made-up GPUs (design, decision 9)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

GPUS = ("GPU-aaaa", "GPU-bbbb")
JOB = """
import os, sys, time
from pathlib import Path
from segwright.training.lease import acquire_gpu
lease = acquire_gpu(int(sys.argv[2]), Path(sys.argv[1]), gpus=sys.argv[3].split(","), poll_s=0.02)
assert os.environ.get("CUDA_VISIBLE_DEVICES") == (lease.gpu if lease else os.environ.get("CUDA_VISIBLE_DEVICES"))
print(lease.gpu if lease else "left alone: " + str(os.environ.get("CUDA_VISIBLE_DEVICES")), flush=True)
sys.stdin.read()
"""


class Jobs:
    """Processes that take a slot, say which, and hold it until they are told to end."""

    def __init__(self, folder: Path, per_gpu: int) -> None:
        self.folder, self.per_gpu = folder, per_gpu
        self.all: list[subprocess.Popen[str]] = []

    def start(self, **environment: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, str(self.folder), str(self.per_gpu), ",".join(GPUS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean, **environment},
        )
        self.all.append(job)
        return job

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *error: object) -> None:
        for job in self.all:
            job.kill()
            job.wait()
            for stream in (job.stdin, job.stdout):
                if stream is not None:
                    stream.close()


def said(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def says_nothing(job: subprocess.Popen[str], seconds: float = 0.3) -> bool:
    assert job.stdout is not None
    os.set_blocking(job.stdout.fileno(), False)
    time.sleep(seconds)
    try:
        return not job.stdout.readline()
    finally:
        os.set_blocking(job.stdout.fileno(), True)


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_every_job_has_its_own_slot_and_a_killed_one_frees_it(tmp_path: Path, per_gpu: int) -> None:
    with Jobs(tmp_path, per_gpu) as jobs:
        running = {job: said(job) for job in [jobs.start() for _ in range(len(GPUS) * per_gpu)]}
        assert Counter(running.values()) == dict.fromkeys(GPUS, per_gpu)
        waiting = jobs.start()
        assert says_nothing(waiting), "more jobs than slots"
        victim = next(job for job, gpu in running.items() if gpu == GPUS[1])
        victim.send_signal(signal.SIGKILL)
        assert said(waiting) == GPUS[1]
        ending = next(job for job, gpu in running.items() if gpu == GPUS[0])
        ending.communicate()  # ends by itself
        assert said(jobs.start()) == GPUS[0]


def test_a_choice_of_scheduler_or_user_is_left_alone_and_takes_no_slot(tmp_path: Path) -> None:
    with Jobs(tmp_path, 1) as jobs:
        assert said(jobs.start(CUDA_VISIBLE_DEVICES="1")) == "left alone: 1"
        assert said(jobs.start(SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="0")) == "left alone: 0"
        assert said(jobs.start(SLURM_JOB_ID="7")) == "left alone: None"
        assert sorted(said(job) for job in (jobs.start(), jobs.start())) == list(GPUS)


def test_a_training_keeps_its_slot_until_it_ends_and_the_setting_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segwright.core.settings import ExecutionSettings
    from segwright.training import lease, machine

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(lease, "find_gpus", lambda: list(GPUS[:1]))
    monkeypatch.setattr(lease, "_private_folder", lambda: tmp_path)
    monkeypatch.setattr(machine, "resolve_device", lambda setting: os.environ["CUDA_VISIBLE_DEVICES"])
    held = []
    for _ in range(3):
        context = machine.leased_device(ExecutionSettings(jobs_per_gpu=3))
        assert context.__enter__() == GPUS[0]
        held.append(context)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(list(tmp_path.glob("*.lock"))) == 3
    for context in held:
        context.__exit__(None, None, None)
    with machine.leased_device(ExecutionSettings(jobs_per_gpu=1)) as device:
        assert device == GPUS[0]
