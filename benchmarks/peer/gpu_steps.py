"""Training steps of nnU-Net v2's trainer and of segwright's loop on one GPU, in turn: same plans, weights and batch.

    python -m benchmarks.peer.gpu_steps [--device cuda] [--steps 20] [--max-patch 512]

Runs in an environment that has both programs and a torch for the GPU. The batch lies in the CPU's memory, as a loader
delivers it, so this is seconds an epoch without loading and augmenting: 250 steps are one. Prints rows of a table.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segwright.core.plans import Configuration, Plans
from segwright.core.settings import PlanningSettings, TrainingSettings
from segwright.networks.build import build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import with_aliases
from segwright.planning.planner import make_plans
from segwright.training.compilation import forward_of
from segwright.training.fold import reproducible
from segwright.training.loop import EpochRules, resolve_compute, train_steps
from segwright.training.loss import LOSSES, LossOptions
from segwright.training.optimizer import build_optimizer

Steps = Callable[[int], float]
"""Does so many steps; gives the loss of the last, or their mean."""

FACTS = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "numTraining": 20,
         "file_ending": ".nii.gz"}  # fmt: skip
FINGERPRINT = {
    "shapes_after_crop": [[160, 512, 512]] * 20,
    "spacings": [[1.0, 1.0, 1.0]] * 20,
    "median_relative_size_after_cropping": 1.0,
    "foreground_intensity_properties_per_channel": {
        "0": {"max": 1000.0, "mean": 50.0, "median": 50.0, "min": -1000.0, "percentile_00_5": -500.0,
              "percentile_99_5": 500.0, "std": 100.0}
    },
}  # fmt: skip
OUTPUTS, SEED, ROUNDS = 3, 1, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20, help="steps of one measurement")
    parser.add_argument("--max-patch", type=int, default=512, help="smaller patches, to try the script itself")
    options = parser.parse_args()
    device = torch.device(options.device)
    planning = PlanningSettings(max_patch_size=options.max_patch, base_features=32 if device.type == "cuda" else 4)
    plans, _ = make_plans(FINGERPRINT, FACTS, planning, "Dataset999_Steps", "SimpleITKIO")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device) if device.type == 'cuda' else device}")
    print("| configuration | patch, batch | torch.compile | peer | segwright | times faster | first loss |")
    with tempfile.TemporaryDirectory() as work:
        for name in ("3d_fullres", "2d"):
            for compiles in (False, True):
                compare(plans, name, compiles, device, options.steps, Path(work))


def compare(plans: Plans, name: str, compiles: bool, device: torch.device, steps: int, work: Path) -> None:
    """One row: medians of :data:`ROUNDS` measurements in turn, after the first steps."""
    entry = plans.configuration(name)
    if device.type == "cpu":  # tries the script: a small network leaves room for thousands of samples
        entry = Configuration.from_json(name, {**entry.to_json(), "batch_size": 2})
    record = {**plans.to_json(), "continue_training": False}
    record["configurations"] = {**record["configurations"], name: entry.to_json()}
    network = build_network(entry.architecture, 1, OUTPUTS, True)
    initialize(network, SEED)
    images, targets = batch(entry)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    sides: Mapping[str, Steps] = {
        "peer": peer(record, name, weights, images, targets, compiles, device, work),
        "ours": ours(entry, network, images, targets, compiles, device),
    }
    first = {side: run(1) for side, run in sides.items()}
    took_ms: dict[str, list[float]] = {side: [] for side in sides}
    for run in sides.values():
        run(2)
    for _ in range(ROUNDS):
        for side, run in sides.items():
            started = time.perf_counter()
            run(steps)  # reads the last loss, so nothing is left to do afterwards
            took_ms[side].append((time.perf_counter() - started) / steps * 1000)
    theirs, mine = median(took_ms["peer"]), median(took_ms["ours"])
    print(
        f"| {name} | {'x'.join(map(str, entry.patch_size))}, {entry.batch_size} | {'yes' if compiles else 'no'} "
        f"| {theirs:.1f} ms | {mine:.1f} ms | {theirs / mine:.2f} | {first['peer']:.6f}, {first['ours']:.6f} |",
        flush=True,
    )


def batch(entry: Configuration) -> tuple[np.ndarray, list[np.ndarray]]:
    """Noisy images (n, 1, [z], y, x) and label maps of all heads."""
    rng = np.random.default_rng(SEED)
    shape = (entry.batch_size, 1, *entry.patch_size)
    labels = (rng.random(shape) < 0.2).astype(np.int16) + (rng.random(shape) < 0.1)
    images = (labels + rng.standard_normal(shape, np.float32)).astype(np.float32)
    coarseness = np.cumprod(entry.architecture.strides[:-1], axis=0)
    heads = [tuple(slice(None, None, int(step)) for step in steps) for steps in coarseness]
    return images, [np.ascontiguousarray(labels[(slice(None), slice(None), *where)]) for where in heads]


def peer(
    plans: Mapping[str, Any], name: str, weights: Mapping[str, Tensor], images: np.ndarray,
    targets: list[np.ndarray], compiles: bool, device: torch.device, work: Path,
) -> Steps:  # fmt: skip
    """The peer's trainer as its command sets it up; its loader delivers pinned tensors."""
    os.environ |= {f"nnUNet_{folder}": str(work) for folder in ("raw", "preprocessed", "results")}
    os.environ |= {"nnUNet_compile": "t" if compiles else "f"}
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    with contextlib.redirect_stdout(io.StringIO()):
        trainer = nnUNetTrainer(dict(plans), name, 0, json.loads(json.dumps(FACTS)), device)
        stored = Path(trainer.preprocessed_dataset_folder)  # the trainer looks there for the kind of its files
        stored.mkdir(parents=True, exist_ok=True)
        (stored / "none.b2nd").touch()
        trainer.initialize()
    getattr(trainer.network, "_orig_mod", trainer.network).load_state_dict(with_aliases(weights))
    trainer.network.train()
    tensors = [torch.from_numpy(array) for array in (images, *targets)]
    data, *labels = [tensor.pin_memory() for tensor in tensors] if device.type == "cuda" else tensors
    return lambda steps: [float(trainer.train_step({"data": data, "target": labels})["loss"]) for _ in range(steps)][-1]


def ours(
    entry: Configuration, network: torch.nn.Module, images: np.ndarray, targets: list[np.ndarray], compiles: bool,
    device: torch.device,
) -> Steps:  # fmt: skip
    network = network.to(device).train()
    settings, compute = TrainingSettings(compile=compiles).resolved(), resolve_compute("auto", str(device))
    options = LossOptions(OUTPUTS, batch_dice=entry.batch_dice)
    rules = EpochRules(LOSSES.get("default")(options), options, settings.gradient_clip, compute)
    optimizer, scaler, parameters = build_optimizer(network, settings), compute.scaler(), list(network.parameters())
    forward = forward_of(network, settings, device)
    loaded = SimpleNamespace(images=images, targets=targets, case_ids=())

    def run(steps: int) -> float:
        with reproducible(device, 1):
            return train_steps(forward, parameters, optimizer, scaler, [loaded] * steps, rules).loss

    return run


if __name__ == "__main__":
    main()
