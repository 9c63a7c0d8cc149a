"""A real training that is killed again and again ends with the weights of one that is not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from segwright.core.files import TEMPORARY_PREFIX, file_digest
from tests.acceptance.commands import SEGWRIGHT, must
from tests.acceptance.datasets import raw_dataset
from tests.acceptance.recorder import Check

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

CONFIGURATION, EPOCHS, WORKERS = "3d_fullres", 24, 2
KILLS = ("trainer", "state", "worker", "start", "state", "trainer", "worker", "state", "start", "worker")
"""What is killed when. ``start``: the trainer while it starts or shortly after; ``trainer``: at any instant after an
epoch; ``state``: while it writes a state; ``worker``: a process that loads and augments, at any instant."""
SETTINGS = {
    "planning": {"base_features": 8, "max_stages": 4, "max_patch_size": 32, "gpu_memory_gb": 0.1},
    "training": {
        "schedule": "smoke", "epochs": EPOCHS, "iterations": 4, "validation_iterations": 2, "torch_threads": 1,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """The command that trains into ``output``, and what it leaves there."""

    command: tuple[str | Path, ...]
    output: Path

    def start(self) -> psutil.Popen:
        with self.log.open("a") as log:
            return psutil.Popen([*self.command, "--output", self.output], stderr=log)

    @property
    def log(self) -> Path:
        return self.output.with_suffix(".log")

    @property
    def logged(self) -> list[int]:
        """Epochs in training.jsonl; a line torn by a kill does not count."""
        path = self.output / "training.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line)["epoch"] for line in lines]

    @property
    def starts(self) -> list[int]:
        """How many saved epochs each attempt began with."""
        path = self.output / "state" / "attempts.json"
        return [attempt["epochs_at_start"] for attempt in json.loads(path.read_text())] if path.is_file() else []

    @property
    def saved(self) -> int:
        return max((int(path.stem[-6:]) for path in (self.output / "state").glob("epoch_*.json")), default=0)

    @property
    def weights(self) -> str:
        return file_digest(self.output / "model.safetensors")


def test_killed_training_ends_with_the_same_weights(
    check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path
) -> None:
    command = prepare_training(raw_dataset(shared_data, "hippocampus_small"), tmp_path)
    row = check(
        "4 kill and resume",
        f"`segwright train` of {CONFIGURATION} on hippocampus_small, tiny network, {EPOCHS} epochs, {WORKERS} loader "
        f"processes; {len(KILLS)} SIGKILLs at random instants",
    )
    straight = Training(command, tmp_path / "straight")
    generator = random.Random(1)
    struck: list[str] = []
    lost = runs = 0
    with row.measured():
        assert straight.start().wait() == 0, straight.log.read_text()
        while len(struck) < len(KILLS):
            runs += 1
            killed = Training(command, tmp_path / f"killed_{runs}")
            kills, lost_here = _train_with_kills(killed, KILLS[len(struck) :], generator)
            assert kills, "the training ended before anything could be killed"
            struck += kills
            lost += lost_here
            assert killed.weights == straight.weights
            assert killed.logged == straight.logged == list(range(EPOCHS))
            assert not list(killed.output.rglob(f"{TEMPORARY_PREFIX}*"))
    counts = ", ".join(f"{struck.count(kind)} {kind}" for kind in sorted(set(struck)))
    row.say(
        f"{len(struck)} kills ({counts}) over {runs} training{'s' * (runs > 1)}: equal weights; {lost} finished epochs "
        "lost, so at most the epoch under way was repeated; every epoch once in training.jsonl; nothing half-written"
    )
    assert lost == 0


def _train_with_kills(training: Training, kills: tuple[str, ...], generator: random.Random) -> tuple[list[str], int]:
    """Start the training until it is finished, killing one process each time; gives the kills and lost epochs."""
    struck: list[str] = []
    lost = 0
    while True:
        logged, attempts = len(training.logged), len(training.starts)
        process = training.start()
        kind = kills[len(struck)] if len(struck) < len(kills) else None
        helpers = [] if kind is None else _kill(kind, process, training, generator)
        status = process.wait(timeout=600)
        assert not psutil.wait_procs(helpers, timeout=15)[1], "loader processes outlive their trainer"
        if len(training.starts) > attempts:
            lost += max(0, logged - training.starts[-1])
        if status == 0:
            return struck, lost
        messages = training.log.read_text()
        assert kind is not None, f"exit code {status} without a kill:\n{messages[-3000:]}"
        if kind == "worker":
            assert status == 2 and "died" in messages and "Traceback" not in messages, messages[-3000:]
        else:
            assert status == -signal.SIGKILL, messages[-3000:]
        struck.append(kind)


def _kill(kind: str, process: psutil.Popen, training: Training, generator: random.Random) -> list[psutil.Process]:
    """Wait for the instant and kill, unless the training ends first; gives the loader processes there were."""
    if kind == "start":
        time.sleep(generator.uniform(0, 4))
    else:
        before = training.saved
        while training.saved == before and process.poll() is None:
            time.sleep(0.005)
    if kind in ("trainer", "worker"):
        time.sleep(generator.uniform(0, 0.6))
    while kind == "state" and process.poll() is None and not _is_writing_state(training.output / "state"):
        pass  # a write takes milliseconds
    if process.poll() is not None:
        return []
    helpers = [child for child in process.children() if "segwright.training.workers" in " ".join(child.cmdline())]
    (generator.choice(helpers) if kind == "worker" and helpers else process).send_signal(signal.SIGKILL)
    return helpers


def _is_writing_state(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.startswith(TEMPORARY_PREFIX) and entry.name.endswith(".pt") for entry in entries)


def prepare_training(raw: Path, folder: Path) -> tuple[str | Path, ...]:
    """Inspect, plan and preprocess; gives the command that trains, without its output."""
    settings, plans, store, splits = (folder / name for name in ("settings.yaml", "plan", "store", "splits.json"))
    settings.write_text(yaml.safe_dump(SETTINGS))
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    splits.write_text(json.dumps([{"train": cases[4:], "val": cases[:4]}]))
    must("inspect", "--dataset", raw, "--output", folder / "checks")
    must(
        "plan", "--fingerprint", folder / "checks" / "dataset_fingerprint.json", "--dataset-json", raw / "dataset.json",
        "--settings", settings, "--output", plans,
    )  # fmt: skip
    must(
        "preprocess", "--dataset", raw, "--plans", plans / "plans.json", "--configuration", CONFIGURATION,
        "--settings", settings, "--output", store,
    )  # fmt: skip
    return (
        SEGWRIGHT, "train", "--plans", plans / "plans.json", "--configuration", CONFIGURATION, "--preprocessed", store,
        "--splits", splits, "--fold", "0", "--settings", settings, "--workers", str(WORKERS), "--device", "cpu",
    )  # fmt: skip
