"""Small phantoms, plans and networks in every label scenario, as both programs see them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peer.common import SEED, Planned, planned, quiet
from segwright.core.architecture import Architecture
from segwright.core.settings import PlanningSettings
from segwright.core.slices import preprocess_slice
from segwright.images.readers import read_image, read_label
from segwright.networks.build import build_network
from segwright.networks.weights import load_into
from segwright.phantom import make_phantom
from segwright.preprocessing.case import PreprocessedCase, preprocess_case
from segwright.training.augmentation.deep_supervision import supervision_shapes, supervision_targets
from segwright.training.augmentation.label_channels import region_channels, target_regions

SCENARIOS = ("plain", "regions", "ignore", "regions_ignore")
SETTINGS = PlanningSettings(base_features=4, max_features_3d=8, max_features_2d=8, max_patch_size=32)

ARCHITECTURES: dict[str, Architecture] = {
    "plain 3-D": Architecture(
        "plain_unet", (4, 8, 8, 8), ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1)), (2, 2, 2, 2), (2, 2, 2),
    ),
    "plain 2-D": Architecture(
        "plain_unet", (4, 8, 8), ((3, 3), (3, 3), (3, 3)), ((1, 1), (2, 2), (2, 1)), (2, 2, 2), (2, 2),
    ),
    "residual 3-D": Architecture(
        "residual_unet", (4, 8, 8, 8), ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1)), (1, 3, 2, 2), (1, 1, 1),
    ),
    "residual 2-D": Architecture(
        "residual_unet", (4, 8, 8), ((3, 3), (3, 3), (3, 3)), ((1, 1), (2, 2), (2, 1)), (1, 3, 2), (1, 1),
    ),
}  # fmt: skip
"""Anisotropic kernels and strides, stages with and without change of the number of features."""


@dataclass(frozen=True)
class Batch:
    """What both programs train on."""

    images: np.ndarray
    targets: tuple[np.ndarray, ...]
    case_ids: tuple[str, ...]


def phantom(preset: str, work: Path, cases: int = 3, settings: PlanningSettings = SETTINGS) -> Planned:
    """A planned phantom dataset below ``work/nnUNet_raw``."""
    folder = work / "nnUNet_raw" / f"Dataset901_{preset}"
    make_phantom(preset, cases, SEED, folder, test_cases=1)
    return planned(folder, work / preset, settings)


def with_batch_dice(plan: Planned, configuration: str, on: bool) -> Planned:
    entries = {name: dict(entry) for name, entry in plan.plans.configurations.items()}
    entries[configuration]["batch_dice"] = on
    return replace(plan, plans=replace(plan.plans, configurations=entries))


def stored_case(plan: Planned, configuration: str, number: int) -> PreprocessedCase:
    """A training case, preprocessed by segwright."""
    case = plan.dataset.training[number]
    slice_ = preprocess_slice(plan.plans, configuration, plan.dataset.labels, plan.dataset.channel_names)
    assert case.label_file is not None
    image, label = read_image(case.image_files, slice_.reader), read_label(case.label_file, slice_.reader)
    return preprocess_case(image, label, slice_)


def training_batch(plan: Planned, configuration: str) -> Batch:
    """Two central patches of two cases, with the targets of all heads."""
    entry = plan.plans.configuration(configuration)
    patch = (1,) * (3 - len(entry.patch_size)) + entry.patch_size
    regions = target_regions(plan.dataset.labels)
    shapes = supervision_shapes(entry.patch_size, entry.architecture.strides, True)
    images, targets = [], []
    for number in range(2):
        case = stored_case(plan, configuration, number)
        assert case.label_zyx is not None
        image, label = _centre(case.image_czyx, patch), np.maximum(_centre(case.label_zyx, patch), 0)
        if entry.is_2d:
            image, label = image[:, 0], label[0]
        target = label[None] if regions is None else region_channels(label, regions)
        images.append(image)
        targets.append(supervision_targets(target, shapes))
    stacked = tuple(np.stack(head) for head in zip(*targets, strict=True))
    return Batch(np.stack(images).astype(np.float32), stacked, ("first", "second"))


def _centre(array: np.ndarray, patch: tuple[int, ...]) -> np.ndarray:
    starts = [max(0, (extent - edge) // 2) for extent, edge in zip(array.shape[-3:], patch, strict=True)]
    where = tuple(slice(start, start + edge) for start, edge in zip(starts, patch, strict=True))
    cut = array[(..., *where)]
    short = [(0, edge - extent) for extent, edge in zip(cut.shape[-3:], patch, strict=True)]
    return np.pad(cut, [(0, 0)] * (array.ndim - 3) + short)


def peer_network(
    architecture: Architecture, inputs: int, outputs: int, deep_supervision: bool = True, moved: float = 0.05
) -> Any:
    """The peer's network with its own initial weights, by default moved a little: zeros would hide differences."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    entry = json.loads(json.dumps(architecture.to_json()))
    torch.manual_seed(SEED)
    with quiet():
        network = get_network_from_plans(
            entry["network_class_name"], entry["arch_kwargs"], entry["_kw_requires_import"], inputs, outputs,
            allow_init=True, deep_supervision=deep_supervision,
        )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * moved)
    return network


def our_network(architecture: Architecture, inputs: int, outputs: int, state: dict[str, torch.Tensor]) -> Any:
    network = build_network(architecture, inputs, outputs, True)
    load_into(network, state)
    return network


def peer_trainer(plan: Planned, configuration: str, network: Any) -> Any:
    """The peer's trainer with loss, network and optimizer, but without data of its own."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    with quiet():
        trainer = nnUNetTrainer(
            {**plan.plans_json, "continue_training": False}, configuration, 0, plan.facts, torch.device("cpu")
        )
        trainer.network = network
        trainer.optimizer, _ = trainer.configure_optimizers()
        trainer.loss = trainer._build_loss()
    return trainer
