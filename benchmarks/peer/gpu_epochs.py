"""Whole epochs of nnU-Net v2's trainer and of segwright's training on one GPU: with and without loading.

    python -m benchmarks.peer.gpu_epochs [--device cuda] [--workers 12 4] [--until-s 500]

Runs in an environment that has both programs and a torch for the GPU. Makes its own images, stores them as each program
does, and trains with torch.compile and float16 on the same plans. Without loading, one batch lies on the device, as in
the peer's ``nnUNetTrainerBenchmark_5epochs_noDataLoading``. Like that trainer, ours and the peer's write no checkpoint
within the time. Prints rows of a table as they come, so what was measured stays when time is up.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tests.unit.training.stored import locations, write_store

from benchmarks.device_augmentation import organs
from benchmarks.peer.gpu_steps import FACTS, FINGERPRINT, SEED
from segwright.core.files import write_json
from segwright.core.labels import Labels
from segwright.core.plans import Configuration, Plans
from segwright.core.settings import PlanningSettings, TrainingSettings
from segwright.core.slices import TrainPlan, train_slice
from segwright.planning.planner import make_plans
from segwright.splits import Fold
from segwright.training.augmentation.on_device.batches import DeviceBatch
from segwright.training.data import TrainingData, open_data
from segwright.training.fold import run_training
from segwright.training.request import TrainingRequest

DATASET, CASES, KEYS = "Dataset999_Epochs", 8, (1, 2)
FOLD = Fold("0", tuple(f"case_{n}" for n in range(CASES - 2)), tuple(f"case_{n}" for n in range(CASES - 2, CASES)))
EPOCHS = 3  # of which the first, with compiling and starting, does not count
WHOLE_EPOCH = 250  # iterations, and a fifth as many for validation


@dataclass(frozen=True)
class Work:
    """Trainings of one configuration.

    Attributes:
        iterations: training steps of a measured epoch; a fifth as many validation steps follow.
        folder: with ``segwright/index.json`` and the peer's folders.
    """

    plans: Plans
    name: str
    iterations: int
    device: torch.device
    compiles: bool
    folder: Path

    @property
    def entry(self) -> Configuration:
        return self.plans.configuration(self.name)

    @property
    def train_plan(self) -> TrainPlan:
        return train_slice(self.plans, self.name, Labels.from_json(FACTS))


@dataclass(frozen=True)
class Way:
    """Who trains, and where its batches come from: ``none``, ``workers`` or ``device``."""

    program: str
    batches: str
    workers: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, nargs="+", default=[12, 4], help="processes that load and augment")
    parser.add_argument("--iterations", type=int, default=80, help="training steps of a measured epoch")
    parser.add_argument("--until-s", type=float, default=float("inf"), help="begin no measurement after so long")
    parser.add_argument("--configurations", nargs="+", default=["3d_fullres", "2d"])
    parser.add_argument("--small", action="store_true", help="small patches and images, to try the script itself")
    options = parser.parse_args()
    started, failed, device = time.monotonic(), False, torch.device(options.device)
    planning = PlanningSettings(max_patch_size=32, base_features=4) if options.small else PlanningSettings()
    plans, _ = make_plans(FINGERPRINT, FACTS, planning, DATASET, "SimpleITKIO")
    if options.small:  # a small network leaves room for thousands of samples
        record = plans.to_json()
        entries = {name: {**entry, "batch_size": 2} for name, entry in record["configurations"].items()}
        plans = Plans.from_json({**record, "configurations": entries})
    shape_zyx = (40, 48, 48) if options.small else (128, 384, 384)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device) if device.type == 'cuda' else device}, "
          f"{os.cpu_count()} cores")  # fmt: skip
    print(f"| configuration | patch, batch | program | batches | {WHOLE_EPOCH} + {WHOLE_EPOCH // 5} iterations |")
    ways = [Way("peer", "none"), Way("segwright", "none")]
    for count in options.workers:
        ways += [Way("peer", "workers", count), Way("segwright", "workers", count), Way("segwright", "device", count)]
    with tempfile.TemporaryDirectory() as folder:
        store(plans, options.configurations, shape_zyx, Path(folder))
        print(f"stored after {time.monotonic() - started:.0f} s", file=sys.stderr)
        for name in options.configurations:
            work = Work(plans, name, options.iterations, device, device.type == "cuda", Path(folder))
            for way in ways:
                if time.monotonic() - started < options.until_s:
                    failed |= not measure(work, way)
    sys.exit(int(failed))


def measure(work: Work, way: Way) -> bool:
    """Print a row; whether it could be measured. What fails is shown and the next row measured."""
    torch.compiler.reset()
    try:
        seconds = (peer if way.program == "peer" else ours)(work, way)
    except Exception:  # the device is lent for minutes: the other rows are still wanted, and the exit code tells
        traceback.print_exc()
        return False
    patch = "x".join(map(str, work.entry.patch_size))
    source = way.batches if way.batches == "none" else f"augmented by {way.batches}, {way.workers} processes"
    scaled = " / ".join(f"{took * WHOLE_EPOCH / work.iterations:.1f} s" for took in seconds)
    print(f"| {work.name} | {patch}, {work.entry.batch_size} | {way.program} | {source} | {scaled} |", flush=True)
    return True


def store(plans: Plans, configurations: list[str], shape_zyx: tuple[int, int, int], folder: Path) -> None:
    """The same images in the stored formats of both programs."""
    base = folder / "preprocessed" / DATASET
    base.mkdir(parents=True)
    os.environ |= {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    import blosc2
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    write_json(base / "splits_final.json", [{"train": list(FOLD.train), "val": list(FOLD.val)}])
    write_json(base / "dataset_fingerprint.json", FINGERPRINT)
    blosc2.set_nthreads(os.cpu_count() or 1)
    cases = {}
    for number in range(CASES):
        image_czyx, label_zyx = organs(shape_zyx, number)
        label_zyx = np.minimum(label_zyx, KEYS[-1])
        cases[f"case_{number}"] = image_czyx, label_zyx
        places = {key: np.pad(found, ((0, 0), (1, 0))) for key, found in locations(label_zyx, KEYS).items()}
        for name in configurations:
            entry = plans.configuration(name)
            target = base / entry.data_identifier
            target.mkdir(exist_ok=True)
            patch = tuple(entry.patch_size)
            blocks, chunks = comp_blosc2_params(image_czyx.shape, patch, 4)
            nnUNetDatasetBlosc2.save_case(
                image_czyx, label_zyx[None], {"class_locations": places}, str(target / f"case_{number}"),
                chunks=chunks, blocks=blocks, chunks_seg=chunks, blocks_seg=blocks,
            )  # fmt: skip
    write_store(folder / "segwright", cases, KEYS)


def peer(work: Work, way: Way) -> list[float]:
    """Seconds of the peer's epochs but the first."""
    os.environ |= {"nnUNet_n_proc_DA": str(way.workers)}
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Trainer(nnUNetTrainer):  # type: ignore[misc]
        """A few short epochs without checkpoints and without the validation of whole cases."""

        def get_dataloaders(self) -> tuple[Iterator[object], Iterator[object]]:
            return super().get_dataloaders() if way.batches == "workers" else (endless(), endless())

        def save_checkpoint(self, filename: str) -> None: ...
        def perform_actual_validation(self, save_probabilities: bool = False) -> None: ...

    def endless() -> Iterator[object]:
        batch = one_batch(work)
        while True:
            yield {"data": batch.images, "target": batch.targets}

    record = {**work.plans.to_json(), "continue_training": False}
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(record, work.name, 0, json.loads(json.dumps(FACTS)), work.device)
        trainer.num_epochs, trainer.num_iterations_per_epoch = EPOCHS, work.iterations
        trainer.num_val_iterations_per_epoch = work.iterations // 5
        trainer.run_training()
    times = [trainer.logger.get_value(f"epoch_{end}_timestamps", step=None) for end in ("end", "start")]
    return [end - start for end, start in zip(*times, strict=True)][1:]


def ours(work: Work, way: Way) -> list[float]:
    settings = TrainingSettings(
        epochs=EPOCHS, iterations=work.iterations, validation_iterations=work.iterations // 5, compile=work.compiles,
        checkpoint_interval=EPOCHS, augment_on="device" if way.batches == "device" else "workers", seed=SEED,
    ).resolved()  # fmt: skip
    with tempfile.TemporaryDirectory(dir=work.folder) as output:
        index = work.folder / "segwright" / "index.json"
        request = TrainingRequest(work.train_plan, settings, index, FOLD, Path(output), work.device.type, way.workers)
        data = open_data(request, settings)
        if way.batches == "none":
            data = TrainingData(data.identity, data.mirror_axes, lambda: OneBatch(work), lambda: OneBatch(work))
        with contextlib.redirect_stdout(io.StringIO()):
            run_training(request, data, {})
        epochs = (Path(output) / "training.jsonl").read_text().splitlines()
    return [float(json.loads(line)["duration_s"]) for line in epochs][1:]


class OneBatch:
    """The same batch for every step."""

    def __init__(self, work: Work) -> None:
        self.batch = one_batch(work)

    def epoch(self, epoch: int, steps: int) -> Iterator[DeviceBatch]:
        for _ in range(steps):
            yield self.batch

    def close(self) -> None: ...


def one_batch(work: Work) -> DeviceBatch:
    """Random numbers and labels on the device, with the targets of all heads."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (work.entry.batch_size, 1, *work.entry.patch_size)
    images = torch.rand(shape, generator=generator)
    labels = torch.randint(0, KEYS[-1] + 1, shape, generator=generator, dtype=torch.int16)
    coarseness = np.cumprod(work.entry.architecture.strides[:-1], axis=0)
    heads = [labels[(..., *(slice(None, None, int(step)) for step in steps))] for steps in coarseness]
    return DeviceBatch(
        images.to(work.device), [head.contiguous().to(work.device) for head in heads], ("case_0",) * shape[0]
    )


if __name__ == "__main__":
    main()
