"""A training without stored cases: batches follow from (epoch, step). Also run as a script by the kill tests."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.architecture import Architecture
from segwright.core.files import file_digest, write_bytes
from segwright.core.labels import Labels
from segwright.core.settings import TrainingSettings
from segwright.core.slices import TrainPlan
from segwright.splits import Fold
from segwright.training import history
from segwright.training.data import TrainingData
from segwright.training.fold import run_training
from segwright.training.request import TrainingRequest

LABELS = Labels((("background", 0), ("a", 1), ("b", 2)))
ARCHITECTURE = Architecture(
    kind="plain_unet",
    features_per_stage=(4, 8, 8),
    kernel_sizes=((3, 3),) * 3,
    strides=((1, 1), (2, 2), (2, 2)),
    blocks_per_stage=(1, 1, 1),
    convs_per_stage_decoder=(1, 1),
)
PLAN = TrainPlan("2d", 1, LABELS, (16, 16), 2, ARCHITECTURE, True, (False,))
SETTINGS = TrainingSettings(
    schedule="smoke", epochs=6, iterations=2, validation_iterations=1, torch_threads=1, seed=3, optimizer="sgd"
)
FOLD = Fold("0", ("case_1", "case_2"), ("case_3",))


@dataclass(frozen=True)
class FakeBatch:
    images: np.ndarray
    targets: list[np.ndarray]
    case_ids: tuple[str, ...]


class FakeBatches:
    """Bright squares of label 1 and 2 on noise; ``spoil`` may change a batch or raise."""

    def __init__(
        self, plan: TrainPlan, training: bool, spoil: Callable[[int, int, FakeBatch], FakeBatch] | None = None
    ) -> None:
        self.plan, self.training, self.spoil, self.closed = plan, training, spoil, False

    def epoch(self, epoch: int, steps: int) -> Iterator[FakeBatch]:
        for step in range(steps):
            batch = self.make(epoch, step)
            yield batch if self.spoil is None else self.spoil(epoch, step, batch)

    def close(self) -> None:
        self.closed = True

    def make(self, epoch: int, step: int) -> FakeBatch:
        generator = np.random.default_rng([int(self.training), epoch, step])
        n, size = self.plan.batch_size, self.plan.patch_size[0]
        target = np.zeros((n, 1, size, size), np.uint8)
        for sample in range(n):
            for label in (1, 2):
                y, x = generator.integers(0, size - 6, 2)
                target[sample, 0, y : y + 6, x : x + 6] = label
        images = target * 1.0 + generator.normal(0, 0.3, target.shape)
        targets = [target, target[..., ::2, ::2].copy()]
        return FakeBatch(images.astype(np.float32), targets, tuple(f"case_{1 + sample}" for sample in range(n)))


def make_request(output: Path, **changes: Any) -> TrainingRequest:
    """A request; ``deadline``, ``fold``, ``plan`` and ``initial_model`` change it, all other names its settings."""
    own = {name: changes.pop(name) for name in ("deadline", "fold", "plan", "initial_model") if name in changes}
    settings = replace(SETTINGS, **changes).resolved()
    return replace(TrainingRequest(PLAN, settings, Path("index.json"), FOLD, output), **own)


def make_data(
    plan: TrainPlan = PLAN,
    spoil: Callable[[int, int, FakeBatch], FakeBatch] | None = None,
    *,
    identity: str = "data",
    validation: bool = True,
) -> TrainingData:
    return TrainingData(
        identity={"data_id": identity},
        mirror_axes=(0, 1),
        training=lambda: FakeBatches(plan, True, spoil),
        validation=(lambda: FakeBatches(plan, False)) if validation else None,
    )


def train(output: Path, **changes: Any) -> str:
    """Train and give the digest of the weights."""
    request = make_request(output, **changes)
    run_training(request, make_data(request.plan), {})
    return file_digest(output / "model.safetensors")


def _child(output: Path, epochs: int, kill_at: int | None = None) -> None:
    """Body of a forked child: train, dying at the ``kill_at``-th rename (where files come into being)."""
    if kill_at is not None:
        real, calls = os.replace, [0]

        def replace_or_die(source: Any, target: Any) -> None:
            calls[0] += 1
            before = calls[0] == kill_at
            if before and kill_at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)
            if before:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace_or_die  # type: ignore[assignment]
    train(output, epochs=epochs)


def fork(body: Callable[[], None]) -> int:
    """Run ``body`` in a forked child (torch is loaded already, so a start costs nothing) and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)


def exit_status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at_random_instants(folder: Path, kills: int, seed: int, epochs: int = 12) -> str:
    """Kill trainings some random time after they made an epoch; each must end with the straight run's weights."""
    generator = random.Random(seed)
    if exit_status(fork(partial(_child, folder / "straight", epochs))):
        raise SystemExit("the straight run failed")
    wanted = file_digest(folder / "straight" / "model.safetensors")
    done = run = 0
    while done < kills:
        run += 1
        output, status = folder / f"run{run}", -signal.SIGKILL
        while status == -signal.SIGKILL:
            before = saved_epochs(output)
            pid = fork(partial(_child, output, epochs))
            if done < kills:
                while (
                    saved_epochs(output) == before and before < epochs and not (output / "model.safetensors").exists()
                ):
                    time.sleep(0.002)
                time.sleep(generator.uniform(0, 0.1))
                os.kill(pid, signal.SIGKILL)
            status = exit_status(pid)
            done += status == -signal.SIGKILL
        if status:
            raise SystemExit(f"attempt ended with {status}")
        if file_digest(output / "model.safetensors") != wanted:
            raise SystemExit(f"other weights after kills in run {run}")
    return f"{done} kills, {run} runs, equal weights"


def saved_epochs(output: Path) -> int:
    return max((int(path.stem[-6:]) for path in (output / "state").glob("epoch_*.json")), default=0)


def kill_at_every_write(folder: Path, epochs: int = 2) -> str:
    """For each k: die at the k-th rename of a training, then go on; the weights must be the straight run's."""
    if exit_status(fork(partial(_child, folder / "straight", epochs))):
        raise SystemExit("the straight run failed")
    wanted = file_digest(folder / "straight" / "model.safetensors")
    k = 0
    while True:
        k += 1
        output = folder / f"write{k}"
        status = exit_status(fork(partial(_child, output, epochs, k)))
        if status == 0:
            return f"{k - 1} kills, equal weights"
        if status != -signal.SIGKILL:
            raise SystemExit(f"child ended with {status} at write {k}")
        if exit_status(fork(partial(_child, output, epochs))):
            raise SystemExit(f"could not go on after a kill at write {k}")
        if file_digest(output / "model.safetensors") != wanted:
            raise SystemExit(f"other weights after a kill at write {k}")
        if list(output.rglob(".part-*")):
            raise SystemExit(f"temporary files left after write {k}")


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    importlib.import_module("torch._dynamo")  # the first optimizer imports it, which takes most of a child's time
    history.draw_progress = lambda path, records: write_bytes(path, b"figure")  # drawing takes most of the rest
    print(kill_at_every_write(folder) if sys.argv[1] == "writes" else kill_at_random_instants(folder, 10, 1))
