"""A training step (forward, loss on all heads, backward, clipping, optimizer) on one batch in memory, one thread.

The weights and the batch are the same on both sides; the peer computes in float32 always.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import Function, Goal, Pair, Place

FLAT, SOLID = "2-D, 56x40, batch 32", "3-D, 40x56x40, batch 2"
_GOALS = {
    (SOLID, "fp32"): (Goal(ratio=1.0), Goal(ratio=1.0)),
    (FLAT, "fp32"): (Goal(ratio=1.0), Goal(ratio=1.0)),
    (SOLID, "bf16"): (Goal(ratio=1.8), Goal(ratio=2.1)),
    (FLAT, "bf16"): (Goal(ratio=1.6), Goal(ratio=1.8)),
}
STAGES = tuple(f"training step {shape}, {precision}" for shape, precision in _GOALS)
_PATCHES = {FLAT: (56, 40), SOLID: (40, 56, 40)}
_BATCH_SIZES = {FLAT: 32, SOLID: 2}
_STEPS = {FLAT: 6, SOLID: 2}
_SEED = 20240229


def pair(stage: str, place: Place) -> Pair | None:
    from benchmarks.stages.inputs import hippocampus, prepare

    folder = hippocampus(place)
    if folder is None:
        return None
    key = next(key for key in _GOALS if stage.endswith(f"{key[0]}, {key[1]}"))
    shape, precision = key
    configuration = "2d" if shape == FLAT else "3d_fullres"
    prepared = prepare(place, folder)
    arguments = {
        "plans": str(prepared.plans_file),
        "configuration": configuration,
        "batch": str(write_batch(place.work / "batch.npz", _PATCHES[shape], _BATCH_SIZES[shape])),
        "weights": str(place.work / "weights.safetensors"),
        "steps": _STEPS[shape],
    }
    write_weights(Path(arguments["weights"]), prepared.plans.configuration(configuration).architecture)
    return Pair(
        stage,
        peer=Function(
            "benchmarks.stages.training:peer", {**arguments, "dataset_json": str(folder / "dataset.json")},
            prepared.variables,
        ),
        ours=Function("benchmarks.stages.training:ours", {**arguments, "precision": precision}),
        must=_GOALS[key][0],
        target=_GOALS[key][1],
        difference=first_losses,
        per_run=(_STEPS[shape], "steps"),
    )  # fmt: skip


def write_batch(path: Path, patch: tuple[int, ...], size: int) -> Path:
    """Blobs of two labels and a noisy image of them, with a target for each of three heads."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(_SEED)
    smooth = np.stack([gaussian_filter(rng.standard_normal(patch), 3.0) for _ in range(size)])
    labels = np.digitize(smooth, np.quantile(smooth, (0.8, 0.9))).astype(np.int16)[:, None]
    images = (labels + rng.standard_normal(labels.shape)).astype(np.float32)
    every = [(slice(None), slice(None), *(slice(None, None, step),) * len(patch)) for step in (1, 2, 4)]
    np.savez(path, images=images, **{f"target_{number}": labels[where] for number, where in enumerate(every)})
    return path


def write_weights(path: Path, architecture: Any) -> None:
    from segwright.networks.build import build_network
    from segwright.networks.initialization import initialize
    from segwright.networks.weights import save_weights

    network = build_network(architecture, 1, 3, True)
    initialize(network, _SEED)
    save_weights(path, network, {"format": "pt"})


def peer(plans: str, configuration: str, batch: str, weights: str, steps: int, dataset_json: str) -> Callable[[], Any]:
    """The peer's trainer, as its command sets it up, without data of its own."""
    import contextlib
    import io
    import json

    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from segwright.networks.weights import load_weights, with_aliases

    torch.set_num_threads(1)
    facts = json.loads(Path(plans).read_text()) | {"continue_training": False}
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = nnUNetTrainer(
            facts, configuration, 0, json.loads(Path(dataset_json).read_text()), torch.device("cpu")
        )
        stored = Path(trainer.preprocessed_dataset_folder)  # the trainer looks there for the kind of its files
        stored.mkdir(exist_ok=True)
        (stored / "none.b2nd").touch()
        trainer.initialize()
        trainer.network.load_state_dict(with_aliases(load_weights(Path(weights))))
        trainer.network.train()
    with np.load(batch) as arrays:
        images, targets = torch.from_numpy(arrays["images"]), [torch.from_numpy(target) for target in _targets(arrays)]

    def run() -> list[float]:
        return [float(trainer.train_step({"data": images, "target": targets})["loss"]) for _ in range(steps)]

    return run


def ours(plans: str, configuration: str, batch: str, weights: str, steps: int, precision: str) -> Callable[[], Any]:
    """The steps of an epoch as a training takes them, deterministic operators included."""
    import json
    from types import SimpleNamespace

    import torch

    from segwright.core.plans import Plans
    from segwright.core.settings import TrainingSettings
    from segwright.networks.build import build_network
    from segwright.networks.weights import load_into, load_weights
    from segwright.training.fold import reproducible
    from segwright.training.loop import EpochRules, resolve_compute, train_steps
    from segwright.training.loss import LOSSES, LossOptions
    from segwright.training.optimizer import build_optimizer

    entry = Plans.from_json(json.loads(Path(plans).read_text())).configuration(configuration)
    network = build_network(entry.architecture, 1, 3, True)
    load_into(network, load_weights(Path(weights)))
    settings, compute = TrainingSettings().resolved(), resolve_compute(precision, "cpu")
    options = LossOptions(3, batch_dice=entry.batch_dice)
    rules = EpochRules(LOSSES.get("default")(options), options, settings.gradient_clip, compute)
    optimizer, parameters = build_optimizer(network, settings), list(network.parameters())
    with np.load(batch) as arrays:
        loaded = SimpleNamespace(images=arrays["images"], targets=_targets(arrays), case_ids=())

    def run() -> list[float]:
        with reproducible(torch.device("cpu"), 1):
            return [
                train_steps(network, parameters, optimizer, compute.scaler(), [loaded], rules).loss
                for _ in range(steps)
            ]

    return run


def first_losses(mine: Path, theirs: Path) -> str:
    """Losses of the first steps on the same batch and weights."""
    import json

    apart = [abs(a - b) for a, b in zip(json.loads(mine.read_text()), json.loads(theirs.read_text()), strict=True)]
    return f"loss of the first {len(apart)} steps: {max(apart):.1g} at most"


def _targets(arrays: Any) -> list[np.ndarray]:
    return [arrays[f"target_{number}"] for number in range(3)]
