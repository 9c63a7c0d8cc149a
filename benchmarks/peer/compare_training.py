"""Loss, targets, validation counts and training steps in the four label scenarios (method 8, 9.1, 9.3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.peer.common import SEED, Planned, Table, largest_difference, quiet, relative_difference, workplace
from benchmarks.peer.small import (
    SCENARIOS,
    SETTINGS,
    Batch,
    our_network,
    peer_network,
    peer_trainer,
    phantom,
    training_batch,
    with_batch_dice,
)
from segwright.core.settings import TrainingSettings
from segwright.training.loop import EpochRules, resolve_compute, train_steps
from segwright.training.loss import LOSSES, LossOptions, deep_supervision_weights, weighted_loss
from segwright.training.metrics import hard_counts
from segwright.training.optimizer import build_optimizer

LOSS_TOLERANCE, CURVE_TOLERANCE, FLOAT64_TOLERANCE, STEPS = 1e-6, 1e-4, 1e-6, 20


def main() -> None:
    torch.set_num_threads(1)
    table = Table("Training")
    for preset in (*SCENARIOS, "2d"):
        with workplace() as work:
            plan = phantom(preset, work)
            for configuration in ("2d",) if preset == "2d" else ("3d_fullres", "2d"):
                for batch_dice in (False, True):
                    compare_loss(with_batch_dice(plan, configuration, batch_dice), configuration, table)
                compare_steps(with_batch_dice(plan, configuration, configuration == "2d"), configuration, table)
    with workplace() as work:
        residual = phantom("plain", work, settings=replace(SETTINGS, planner="resenc"))
        for name in ("3d_fullres", "2d"):
            compare_steps(with_batch_dice(residual, name, name == "2d"), name, table, "residual ")
    table.close()


def compare_loss(plan: Planned, configuration: str, table: Table) -> None:
    entry = plan.plans.configuration(configuration)
    name = f"{plan.dataset.name} {configuration}{', batch Dice' if entry.batch_dice else ''}"
    batch, options = training_batch(plan, configuration), loss_options(plan, configuration)
    generator = torch.Generator().manual_seed(SEED)
    outputs = [
        torch.randn(len(target), options.num_outputs, *target.shape[2:], generator=generator) * 3
        for target in batch.targets
    ]
    trainer = peer_trainer(plan, configuration, peer_network(entry.architecture, 1, options.num_outputs))
    peers, peers_gradient = with_gradient(lambda heads: trainer.loss(heads, tensors(batch)), outputs)
    ours, our_gradient = with_gradient(lambda heads: our_loss(options, heads, tensors(batch)), outputs)
    table.row(f"{name}: loss over all heads", abs(ours - peers), LOSS_TOLERANCE)
    table.row(f"{name}: its gradient", relative_difference(our_gradient, peers_gradient), 1e-5, " of the largest")
    trainer.network = lambda _: [head.clone() for head in outputs]
    with quiet():
        found = trainer.validation_step({"data": torch.zeros(1), "target": tensors(batch)})
    counts = hard_counts(outputs[0], tensors(batch)[0], options).numpy()
    theirs = np.stack([found[f"{kind}_hard"] for kind in ("tp", "fp", "fn")])
    table.row(f"{name}: validation counts", largest_difference(counts, theirs), 0, " voxels")


def compare_steps(plan: Planned, configuration: str, table: Table, kind: str = "") -> None:
    """Losses of some steps from the weights the peer begins with."""
    entry, options = plan.plans.configuration(configuration), loss_options(plan, configuration)
    batch = training_batch(plan, configuration)
    for dtype, images, tolerance in (
        (torch.float32, batch.images, CURVE_TOLERANCE),
        (torch.float64, batch.images.astype(np.float64), FLOAT64_TOLERANCE),
    ):
        network = peer_network(entry.architecture, images.shape[1], options.num_outputs, moved=0.0)
        start = our_network(entry.architecture, images.shape[1], options.num_outputs, network.state_dict()).to(dtype)
        trainer = peer_trainer(plan, configuration, network.to(dtype))
        data = {"data": torch.from_numpy(images), "target": tensors(batch)}
        with quiet():
            theirs = [float(trainer.train_step(data)["loss"]) for _ in range(STEPS)]
        difference = largest_difference(our_steps(start, replace(batch, images=images), options), theirs)
        what = f"loss of {STEPS} steps" + ("" if dtype == torch.float32 else ", both in float64")
        table.row(f"{plan.dataset.name} {kind}{configuration}: {what}", difference, tolerance)


def our_steps(network: torch.nn.Module, batch: Batch, options: LossOptions, steps: int = STEPS) -> list[float]:
    """Losses of segwright's training steps on one batch."""
    settings = TrainingSettings().resolved()
    optimizer = build_optimizer(network, settings)
    compute = resolve_compute("fp32", "cpu")
    rules = EpochRules(LOSSES.get("default")(options), options, settings.gradient_clip, compute)
    parameters = list(network.parameters())
    return [train_steps(network, parameters, optimizer, compute.scaler(), [batch], rules).loss for _ in range(steps)]


def loss_options(plan: Planned, configuration: str) -> LossOptions:
    labels = plan.dataset.labels
    return LossOptions(
        num_outputs=labels.num_outputs,
        regions=labels.has_regions,
        ignore_label=labels.ignore_label,
        batch_dice=plan.plans.configuration(configuration).batch_dice,
    )


def our_loss(options: LossOptions, outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> torch.Tensor:
    return weighted_loss(LOSSES.get("default")(options), deep_supervision_weights(len(outputs)), outputs, targets)


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [torch.from_numpy(target.copy()) for target in batch.targets]


def with_gradient(loss, outputs: list[torch.Tensor]) -> tuple[float, np.ndarray]:
    """Loss, and its gradient in the full-resolution head."""
    heads = [output.clone().requires_grad_() for output in outputs]
    value = loss(heads)
    value.backward()
    return float(value.detach()), heads[0].grad.numpy()


if __name__ == "__main__":
    main()
