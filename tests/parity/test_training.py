"""Networks, losses and training steps against nnU-Net v2's (method 6.1, 7, 8, 9.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from segwright.core.settings import TrainingSettings
from segwright.networks.build import build_network
from segwright.networks.weights import load_into, with_aliases
from segwright.training.augmentation.deep_supervision import supervision_shapes, supervision_targets
from segwright.training.augmentation.label_channels import region_channels, target_regions
from segwright.training.augmentation.ranges import spatial_ranges
from segwright.training.loop import EpochRules, resolve_compute, train_steps
from segwright.training.loss import LOSSES, LossOptions, deep_supervision_weights, weighted_loss
from segwright.training.optimizer import build_optimizer
from tests.parity.inputs import ARCHITECTURES, CHANNELS, LABELS, OUTPUTS, PATCH, STEEP, blocks, labels_of, wave

Arrays = dict[str, np.ndarray]


class Batch:
    """What :func:`train_steps` needs."""

    case_ids = ("first", "second")

    def __init__(self, images: np.ndarray, targets: list[np.ndarray]) -> None:
        self.images, self.targets = images, targets


def recorded_network(arrays: Callable[..., Arrays], name: str) -> torch.nn.Module:
    """The peer's weights; each tensor is stored once, under the last of its names in v2's files."""
    network = build_network(ARCHITECTURES[name], CHANNELS, OUTPUTS, deep_supervision=True)
    state = arrays("networks", f"{name}/state/")
    load_into(network, {key: torch.from_numpy(values) for key, values in state.items()})
    return network


def targets_of(scenario: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    labels = labels_of(scenario)
    regions = target_regions(labels)
    label = blocks(2, 1, *shapes[0], values=3 + (labels.ignore_label is not None))
    samples = [sample if regions is None else region_channels(sample[0], regions) for sample in label]
    return [np.stack(head) for head in zip(*(supervision_targets(s, shapes) for s in samples), strict=True)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_heads(numbers: dict[str, Any], arrays: Callable[..., Arrays], name: str) -> None:
    network = recorded_network(arrays, name).eval()
    golden = arrays("networks", f"{name}/head/")
    with torch.no_grad():
        heads = network(torch.from_numpy(wave(1, CHANNELS, *PATCH[-ARCHITECTURES[name].dimensions :])))
    assert len(heads) == len(golden)
    for number, head in enumerate(heads):
        expected = golden[str(number)]
        np.testing.assert_allclose(head.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_and_shapes_of_exported_weights(
    numbers: dict[str, Any], arrays: Callable[..., Arrays], name: str
) -> None:
    exported = with_aliases(recorded_network(arrays, name).state_dict())
    assert {key: "x".join(map(str, tensor.shape)) for key, tensor in exported.items()} == numbers["networks"][name][
        "names"
    ]


@pytest.mark.parametrize("scenario", LABELS)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_loss_and_gradient(numbers: dict[str, Any], scenario: str, batch_dice: bool) -> None:
    (recorded,) = (
        entry for entry in numbers["loss"] if entry["scenario"] == scenario and entry["batch_dice"] == batch_dice
    )
    labels, shapes = labels_of(scenario), [tuple(shape) for shape in recorded["shapes"]]
    options = LossOptions(labels.num_outputs, labels.has_regions, labels.ignore_label, batch_dice)
    heads = [torch.from_numpy(wave(2, labels.num_outputs, *shape) * 2).requires_grad_() for shape in shapes]
    targets = [torch.from_numpy(target) for target in targets_of(scenario, shapes)]
    loss = weighted_loss(LOSSES.get("default")(options), deep_supervision_weights(len(heads)), heads, targets)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(recorded["loss"], abs=1e-6)
    gradients = [0.0 if head.grad is None else float(head.grad.double().norm()) for head in heads]
    assert gradients == pytest.approx(recorded["gradients"], rel=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_training_steps(numbers: dict[str, Any], arrays: Callable[..., Arrays], name: str) -> None:
    recorded = numbers["training"][name]
    assert len(recorded) == 20 and recorded[-1] < recorded[0] - 0.1
    curve = losses_of_steps(recorded_network(arrays, name), name, len(recorded))
    np.testing.assert_allclose(curve[:10], recorded[:10], rtol=0, atol=1e-5)
    np.testing.assert_allclose(curve, recorded, rtol=0, atol=1e-4)  # rounding grows from step to step


def test_gradients_are_clipped_alike(numbers: dict[str, Any], arrays: Callable[..., Arrays]) -> None:
    """Of a network whose gradients are too long at first; without clipping the second loss is another one."""
    recorded = numbers["training"]["clipped"]
    curves = []
    for clip in (TrainingSettings().resolved().gradient_clip, math.inf):
        network = recorded_network(arrays, "plain_2d")
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "seg_layers" in name and name.endswith("weight"):
                    parameter.mul_(STEEP)
        curves.append(losses_of_steps(network, "plain_2d", 5, clip))
    np.testing.assert_allclose(curves[0], recorded[:5], rtol=1e-4)
    assert abs(curves[1][1] - recorded[1]) > 0.01 * recorded[1]


def losses_of_steps(network: torch.nn.Module, name: str, steps: int, clip: float | None = None) -> list[float]:
    """On one batch, with the default settings or another longest gradient."""
    architecture, settings = ARCHITECTURES[name], TrainingSettings().resolved()
    edges = PATCH[-architecture.dimensions :]
    shapes = list(supervision_shapes(edges, architecture.strides, True))
    batch = Batch(wave(2, CHANNELS, *edges), targets_of("labels", shapes))
    options = LossOptions(OUTPUTS)
    optimizer, compute = build_optimizer(network, settings), resolve_compute("fp32", "cpu")
    rules = EpochRules(LOSSES.get("default")(options), options, clip or settings.gradient_clip, compute)
    parameters = list(network.parameters())
    return [train_steps(network, parameters, optimizer, compute.scaler(), [batch], rules).loss for _ in range(steps)]


def test_patches_of_the_loader(numbers: dict[str, Any]) -> None:
    for recorded in numbers["patches"]:
        ranges = spatial_ranges(recorded["patch"])
        assert ranges.rotation_rad == pytest.approx(recorded["rotation_rad"], abs=1e-12)
        assert ranges.in_plane == recorded["in_plane"]
        assert list(ranges.loader_patch_size) == recorded["loader_patch"]
        assert list(ranges.flip_axes) == recorded["flips"]
