"""What ``training.augment_on: device`` takes from a loader's process, and what it adds on the device.

    python -m benchmarks.device_augmentation [--device cuda] [--batches 30]

Makes its own images, and the same batches in both ways: CPU time a patch of the process that loads, without and with
augmenting, and the time a batch of augmenting on the device, copies to it included. On the CPU that is CPU time of one
thread, on a GPU wall time. Prints rows of a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tests.unit.training.stored import make_plan, write_store

from segwright.core.labels import Labels
from segwright.core.settings import TrainingSettings
from segwright.training.augmentation.on_device.batches import augment_batch
from segwright.training.fold import reproducible
from segwright.training.loader import BatchSource
from segwright.training.parts import PartSource

LABELS = Labels((("background", 0), *((f"organ {value}", value) for value in range(1, 7))))
CASES, SEED, WARM_UP = 2, 1, 3


@dataclass(frozen=True)
class Work:
    """Batches of one configuration, and the images they are cut from."""

    name: str
    patch: tuple[int, ...]
    batch: int
    image_zyx: tuple[int, int, int]


WORKS = (Work("2d", (512, 512), 12, (12, 640, 640)), Work("3d_fullres", (128, 128, 128), 2, (180, 200, 200)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, default=30, help="measured batches of each configuration")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device) if device.type == 'cuda' else device}")
    print("| configuration | patch, batch | CPU a patch, workers | CPU a patch, device | on the device, a batch |")
    with tempfile.TemporaryDirectory() as work:
        for entry in WORKS:
            measure(entry, device, options.batches, Path(work) / entry.name)


def measure(work: Work, device: torch.device, batches: int, folder: Path) -> None:
    """One row: means over the same batches, after the first ones."""
    index = write_store(folder, {f"case_{n}": organs(work.image_zyx, n) for n in range(CASES)}, range(1, 7))
    plan = make_plan(work.patch, LABELS, work.batch, configuration=work.name)
    settings = TrainingSettings(seed=SEED).resolved()
    made = {"index": index, "case_ids": [f"case_{n}" for n in range(CASES)], "plan": plan, "settings": settings}
    whole, parts = BatchSource(**made, training=True), PartSource(**made, training=True)  # type: ignore[arg-type]
    patches = batches * work.batch
    whole_ms, parts_ms = (cpu_ms(source, batches) / patches for source in (whole, parts))
    with reproducible(device, 1):
        augmenting_ms = device_ms(parts, device, batches) / batches
    edges = "x".join(map(str, work.patch))
    print(
        f"| {work.name} | {edges}, {work.batch} | {whole_ms:.1f} ms | {parts_ms:.1f} ms | {augmenting_ms:.1f} ms |",
        flush=True,
    )


def organs(shape_zyx: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (1, z, y, x) and its label map: six balls, as far as they fit."""
    rng = np.random.default_rng([SEED, seed])
    label_zyx = np.zeros(shape_zyx, np.int8)
    for value in range(1, 7):
        centre = [rng.uniform(0.2, 0.8) * edge for edge in shape_zyx]
        distance = sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, shape_zyx))], centre, strict=True))
        label_zyx[distance < 25**2] = value
    return (label_zyx + rng.standard_normal(shape_zyx, np.float32))[None], label_zyx


def cpu_ms(source: BatchSource | PartSource, batches: int) -> float:
    """CPU time of making batches, in a process that has the files' pages in memory."""
    memory = np.empty(source.slot_bytes, np.uint8)
    for step in range(WARM_UP):
        source.fill(1, step, memory)
    started = time.process_time()
    for step in range(WARM_UP, WARM_UP + batches):
        source.fill(1, step, memory)
    return (time.process_time() - started) * 1000


def device_ms(source: PartSource, device: torch.device, batches: int) -> float:
    """Time from handing a batch over, which is read beforehand, until the device has augmented it; of all batches."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    memory, took_s = np.empty(source.slot_bytes, np.uint8), []
    for step in range(WARM_UP + batches):
        drawn = source.batch(memory, source.fill(1, step, memory))
        started = clock()
        augment_batch(drawn, source.pipeline, device)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        took_s.append(clock() - started)
    return sum(took_s[WARM_UP:]) * 1000


if __name__ == "__main__":
    main()
