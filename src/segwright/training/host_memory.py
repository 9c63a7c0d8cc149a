"""Memory that a training takes of the machine, not of the device: what its batches need (for ``mem_mb`` of a job)."""

from __future__ import annotations

from math import ceil, prod

from segwright.core.slices import TrainPlan
from segwright.training.augmentation.ranges import spatial_ranges
from segwright.training.memory import batch_bytes
from segwright.training.shared_memory import slots_for

_IN_PARENT = 2  # copies: a batch is used while the next one is taken
_PINNED = 2  # batches that a GPU reads, in blocks of powers of two
_COPIED_WINDOWS = 4  # whole batches of windows, which torch's memory for copies comes to


def asked_memory_mb(plan: TrainPlan, workers: int, set_mb: int, augment_on: str = "workers") -> int:
    """What a training job asks for.

    Half of what is set is left to program and network. Batches usually fit into the other half; those of many input
    channels or, in a cascade, of many labels do not.

    Args:
        workers: processes that load and augment; 0: the training does it.
        set_mb: ``execution.train_mem_mb``.
        augment_on: ``training.augment_on``.
    """
    asked_mb = max(set_mb, set_mb // 2 + batches_mb(plan, workers))
    return asked_mb + windows_mb(plan, workers) if augment_on == "device" else asked_mb


def batches_mb(plan: TrainPlan, workers: int) -> int:
    """Slots and copies of whole batches, and what each worker holds of the sample it makes.

    A sample that is turned is read with its surroundings, copied with a border and interpolated; the labels of a
    cascade's previous stage become channels, which are changed in a copy and joined with the image.
    """
    patch_voxels, window_voxels = prod(plan.patch_size), prod(spatial_ranges(plan.patch_size).loader_patch_size)
    turned_bytes = 4 * plan.num_channels * (2 * window_voxels + patch_voxels)
    joined_bytes = 3 * 4 * plan.num_input_channels * patch_voxels if plan.previous_stage is not None else 0
    batches_bytes = (loader_slots(workers) + _IN_PARENT + _PINNED) * batch_bytes(plan)
    return ceil((batches_bytes + max(1, workers) * max(turned_bytes, joined_bytes)) / 1e6)


def loader_slots(workers: int) -> int:
    """Batches in shared memory: those of training, and those of validation, which has workers of its own."""
    return slots_for(workers) + slots_for(validation_workers(workers)) if workers else 0


def validation_workers(workers: int) -> int:
    """A quarter of those that make training batches keeps up: validation batches are not augmented, and few."""
    return min(workers, max(1, workers // 4))


def windows_mb(plan: TrainPlan, workers: int) -> int:
    """What loader patches, which travel where the GPU augments, take beyond patches: slots, and copies it reads.

    Torch keeps the memory of its copies in blocks of powers of two, and most windows have a size of their own: that
    comes to four whole batches. A cascade, which the workers augment, needs nothing more.
    """
    if plan.previous_stage is not None:
        return 0
    window_voxels = prod(spatial_ranges(plan.patch_size).loader_patch_size)
    slots = slots_for(workers) + _IN_PARENT
    voxels = slots * (window_voxels - prod(plan.patch_size)) + _COPIED_WINDOWS * window_voxels
    return voxels * plan.batch_size * (4 * plan.num_channels + 2) // 1_000_000
