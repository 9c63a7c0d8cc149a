"""From drawn batches to augmented ones on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segwright.core.labels import LabelKey, key_values
from segwright.networks.device import to_device
from segwright.training.augmentation.on_device import intensity, spatial  # noqa: F401 - they register
from segwright.training.augmentation.on_device.dispatch import on_device
from segwright.training.augmentation.on_device.resizing import reduce_nearest
from segwright.training.augmentation.pipeline import SamplePipeline
from segwright.training.parts import DrawnBatch, DrawnSample
from segwright.training.workers import BatchLoader


@dataclass(frozen=True)
class DeviceBatch:
    """As ``training.loader.Batch``, with tensors on the device."""

    images: Tensor
    targets: list[Tensor]
    case_ids: tuple[str, ...]


class AugmentedBatches:
    """The batches of a loader, augmented on ``device`` when they are asked for.

    A GPU works through the operations of a batch after those of the step before; nobody waits for either.
    """

    def __init__(self, loader: BatchLoader[DrawnBatch], pipeline: SamplePipeline, device: torch.device) -> None:
        self._loader, self._pipeline, self._device = loader, pipeline, device

    def epoch(self, epoch: int, steps: int) -> Iterator[DeviceBatch]:
        for drawn in self._loader.epoch(epoch, steps):
            yield augment_batch(drawn, self._pipeline, self._device)

    def close(self) -> None:
        self._loader.close()


@torch.no_grad()
def augment_batch(drawn: DrawnBatch, pipeline: SamplePipeline, device: torch.device) -> DeviceBatch:
    """Images (samples, channels, [z,] y, x) float32 and targets, one tensor a deep-supervision scale, on ``device``."""
    samples = [augment(sample, pipeline, device) for sample in drawn.samples]
    images, targets = zip(*samples, strict=True)
    return DeviceBatch(
        torch.stack(images), [torch.stack(scale) for scale in zip(*targets, strict=True)], drawn.case_ids
    )


def augment(sample: DrawnSample, pipeline: SamplePipeline, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """As ``SamplePipeline.apply``: image (channels, *patch) float32 and targets (1 or regions, *shape)."""
    draw = sample.draw
    image, labels = on_device(sample.part, to_device(sample.image, device), to_device(sample.labels, device))
    for twin in draw.intensity:
        image = on_device(twin, image)
    image, labels = on_device(draw.mirror, image, labels)
    if any(pipeline.use_mask_for_norm):
        outside = labels[0] < 0
        pairs = zip(image, pipeline.use_mask_for_norm, strict=True)
        image = torch.stack([volume.masked_fill(outside, 0) if masked else volume for volume, masked in pairs])
    labels = labels.clamp(min=0)
    target = labels if pipeline.regions is None else _region_channels(labels[0], pipeline.regions)
    return image, [reduce_nearest(target, shape) for shape in pipeline.target_shapes]


def _region_channels(label: Tensor, regions: tuple[LabelKey, ...]) -> Tensor:
    """(*spatial) integers to (regions, *spatial) bool: where the label is one of the region's values."""
    channels = []
    for region in regions:
        first, *others = key_values(region)
        channel = label == first
        for value in others:
            channel = channel | (label == value)
        channels.append(channel)
    return torch.stack(channels)
