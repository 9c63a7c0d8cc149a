"""Will a training fit the device's memory, and what would? An estimate before anything is loaded (no torch needed).

The planner compares feature-map entries with a reference measured by nnU-Net v2's authors: batches that fill a GPU of
8 GB have 2 x 560 million entries in 3-D and 12 x 85 million in 2-D (method 3.6), which is about 8 bytes an entry in
half precision. Single precision keeps twice as much. Weights, gradients and the optimizer's moments come on top.
Augmenting on the device (``training.augment_on``) happens between steps, in the memory that a step has left; only for
small networks does it need more than a step. Its sizes follow from the tensors in ``augmentation/on_device``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from segwright.core.architecture import Architecture
from segwright.core.settings import TrainingSettings
from segwright.core.slices import TrainPlan
from segwright.planning.memory import feature_map_entries
from segwright.training.attempts import OutOfMemory
from segwright.training.augmentation.ranges import spatial_ranges

log = logging.getLogger(__name__)

MIN_BATCH = 2
_MIN_BOTTLENECK = 2  # voxels per axis that the deepest feature maps keep, or fewer where planned so
_BYTES_PER_ENTRY = {"fp16": 8.0, "bf16": 8.0, "fp32": 14.0}
_MOMENTS = {"sgd": 1, "adamw": 2}
_TURNING_BYTES = 200 << 20  # corners, weights and scores of the points that are turned at a time
_HOPELESS = 1.5  # beyond this share of the free memory the estimate's own error does not matter any more


@dataclass(frozen=True)
class Size:
    """Patch and batch of a training, and what they need."""

    patch_size: tuple[int, ...]
    batch_size: int
    needed_bytes: float

    def __str__(self) -> str:
        patch = " x ".join(map(str, self.patch_size))
        return f"{self.batch_size} x {patch} (about {self.needed_bytes / 2**30:.1f} GiB)"


def training_bytes(plan: TrainPlan, settings: TrainingSettings, precision: str) -> float:
    """Estimated peak of a training step on the device, in bytes.

    Args:
        precision: ``fp32``, ``fp16`` or ``bf16``, as resolved for the device.
    """
    entries = feature_map_entries(plan.architecture, plan.patch_size, plan.labels.num_outputs)
    copies = 2 + _MOMENTS[settings.optimizer or "sgd"]  # weights, gradients, moments, all in single precision
    step = entries * plan.batch_size * _BYTES_PER_ENTRY[precision]
    if settings.augment_on == "device" and plan.previous_stage is None:
        # the batch before stays until its loss was looked at
        step = max(step + 2 * batch_bytes(plan), augmenting_bytes(plan))
    return step + parameter_count(plan) * 4 * copies


def batch_bytes(plan: TrainPlan) -> float:
    """An augmented batch: images, a cascade's with its previous stage, and label maps or regions for all heads."""
    dimensions, labels = len(plan.patch_size), plan.labels
    target = labels.num_outputs + (labels.ignore_label is not None) if labels.has_regions else 2
    heads = 2**dimensions / (2**dimensions - 1)  # each has half the edges of the one before
    return plan.batch_size * prod(plan.patch_size) * (4 * plan.num_input_channels + target * heads)


def augmenting_bytes(plan: TrainPlan) -> float:
    """Estimated peak of augmenting a batch, while the one before is still there.

    Either the last sample is turned, from a copy of its window with a border, while the others are ready; or all are
    ready and put together.
    """
    window_voxels = prod(spatial_ranges(plan.patch_size).loader_patch_size)
    sample = (4 * plan.num_channels + 2) * 2 * (window_voxels + prod(plan.patch_size)) + _TURNING_BYTES
    batch = batch_bytes(plan)
    return batch + max(batch * (plan.batch_size - 1) / plan.batch_size + sample, 2 * batch)


def nearest_fits(plan: TrainPlan, settings: TrainingSettings, precision: str, free_bytes: float) -> list[Size]:
    """What fits instead: the same patch with a smaller batch, and the same batch with a smaller patch, where possible.

    A batch has at least 2 samples. A patch shrinks along its relatively largest axis by one step of that axis's total
    stride, as the planner shrinks patches (method 3.6), but with the network as it is. If neither alone fits, the
    smaller patch comes with a batch of 2. Empty: nothing fits.
    """
    found = []
    batches = range(plan.batch_size - 1, MIN_BATCH - 1, -1)
    found += _first_fit((replace(plan, batch_size=batch) for batch in batches), settings, precision, free_bytes)
    found += _first_fit(_smaller_patches(plan), settings, precision, free_bytes)
    if not found and plan.batch_size > MIN_BATCH:
        smallest = replace(plan, batch_size=MIN_BATCH)
        found += _first_fit(_smaller_patches(smallest), settings, precision, free_bytes)
    return found


def require_memory(
    plan: TrainPlan, settings: TrainingSettings, precision: str, device: str, free_bytes: float | None
) -> None:
    """Say before the training what would fit, if this does not: as a warning where the estimate is uncertain.

    Raises:
        OutOfMemory: the training needs more than one and a half times the free memory.
    """
    if free_bytes is None:
        return
    needed = training_bytes(plan, settings, precision)
    if needed <= free_bytes:
        return
    text = (
        f"{plan.configuration}: batches of {Size(plan.patch_size, plan.batch_size, needed)} in {precision}, but "
        f"{free_bytes / 2**30:.1f} GiB of {device}'s memory are free; {advice(plan, settings, precision, free_bytes)}"
    )
    if needed > _HOPELESS * free_bytes:
        raise OutOfMemory(text)
    log.warning("%s. It is tried nevertheless", text)


def advice(plan: TrainPlan, settings: TrainingSettings, precision: str, free_bytes: float) -> str:
    """The nearest sizes that fit, and how to set them."""
    fits = nearest_fits(plan, settings, precision, free_bytes)
    if not fits:
        return "no patch and batch of this network fit; lower planning.gpu_memory_gb and planning.base_features"
    first = fits[0]
    shown = " or ".join(map(str, fits))
    return (
        f"the nearest that fit are {shown}: set planning.overrides.{plan.configuration}: "
        f"{{patch_size: {list(first.patch_size)}, batch_size: {first.batch_size}}}, lower planning.gpu_memory_gb, "
        "or run fewer jobs at once (execution.jobs_per_gpu)"
    )


def parameter_count(plan: TrainPlan) -> int:
    """Trainable numbers of the built-in U-Nets, to a few percent: their convolutions (method 7)."""
    architecture = plan.architecture
    features, kernels = architecture.features_per_stage, [prod(kernel) for kernel in architecture.kernel_sizes]
    total, before = 0, plan.num_input_channels
    for width, kernel, blocks in zip(features, kernels, architecture.blocks_per_stage, strict=True):
        convolutions = 2 * blocks if architecture.kind == "residual_unet" else blocks
        total += kernel * (before * width + (convolutions - 1) * width * width)
        before = width
    for stage in range(len(features) - 2, -1, -1):
        width, convolutions = features[stage], architecture.convs_per_stage_decoder[len(features) - 2 - stage]
        total += prod(architecture.strides[stage + 1]) * features[stage + 1] * width
        total += kernels[stage] * (2 * width * width + (convolutions - 1) * width * width)
        total += width * plan.labels.num_outputs
    return total


def _first_fit(
    candidates: Iterator[TrainPlan], settings: TrainingSettings, precision: str, free_bytes: float
) -> list[Size]:
    for plan in candidates:
        needed = training_bytes(plan, settings, precision)
        if needed <= free_bytes:
            return [Size(plan.patch_size, plan.batch_size, needed)]
    return []


def _smaller_patches(plan: TrainPlan) -> Iterator[TrainPlan]:
    """The plan with ever smaller patches, all divisible by the network's strides."""
    steps = _total_strides(plan.architecture)
    least = [step * min(_MIN_BOTTLENECK, edge // step) for step, edge in zip(steps, plan.patch_size, strict=True)]
    patch = list(plan.patch_size)
    while True:
        shrinkable = [axis for axis, edge in enumerate(patch) if edge - steps[axis] >= least[axis]]
        if not shrinkable:
            return
        axis = max(shrinkable, key=lambda axis: patch[axis] / plan.patch_size[axis])
        patch[axis] -= steps[axis]
        yield replace(plan, patch_size=tuple(patch))


def _total_strides(architecture: Architecture) -> list[int]:
    return [prod(axis) for axis in zip(*architecture.strides, strict=True)]
