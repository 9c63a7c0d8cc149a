"""Patch, network and batch size of one configuration, as large as the memory target allows (method 3.5 to 3.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from segwright.core.architecture import Architecture
from segwright.core.errors import PlansError
from segwright.core.settings import PlanningSettings
from segwright.planning.memory import feature_map_entries
from segwright.planning.text import sizes
from segwright.planning.topology import Topology, bounded_topology

MIN_BATCH = 2
MAX_EXTENT_3D, MAX_EXTENT_2D = 256, 2048
"""The first patch has the volume (area) of a cube (square) with this edge, whatever the spacing."""


@dataclass(frozen=True)
class PlannerNumbers:
    """What distinguishes the planners of nnU-Net v2 (method 3.7).

    Attributes:
        class_name: ``experiment_planner_used`` in the plans file.
        reference_gb: GPU memory the reference values stand for; also the default memory target.
        reference_3d, reference_2d: feature-map entries that fit, at the reference batch sizes.
        max_share: share of the dataset's voxels one batch may cover.
        encoder_blocks: convolutions or residual blocks of the first stages; the last number goes on.
        shared_plans_name: prefix of the data identifier of 2d and 3d_fullres, where data are shared with other plans.
        scale_by_batch: compare the estimate times 2 / reference batch with the reference (matters in 2-D only).
    """

    class_name: str
    plans_name: str
    kind: Literal["plain_unet", "residual_unet"]
    reference_gb: float
    reference_3d: float
    reference_2d: float
    max_share: float
    encoder_blocks: tuple[int, ...]
    decoder_convs: int
    shared_plans_name: str
    scale_by_batch: bool
    reference_batch_3d: int = 2
    reference_batch_2d: int = 12


@dataclass(frozen=True)
class Budget:
    """The limits one configuration is planned under; ``limits`` holds what segwright adds to nnU-Net's."""

    numbers: PlannerNumbers
    limits: PlanningSettings
    num_labels: int
    dataset_voxels: float

    def reference(self, is_2d: bool) -> float:
        """Feature-map entries that fit the memory target."""
        value = self.numbers.reference_2d if is_2d else self.numbers.reference_3d
        target_gb = self.limits.gpu_memory_gb
        return value * ((self.numbers.reference_gb if target_gb is None else target_gb) / self.numbers.reference_gb)

    def reference_batch(self, is_2d: bool) -> int:
        return self.numbers.reference_batch_2d if is_2d else self.numbers.reference_batch_3d

    def exceeded_by(self, entries: int, is_2d: bool) -> bool:
        """Whether a sample of ``entries`` feature-map entries is too big (method 3.8)."""
        if self.numbers.scale_by_batch:
            return entries / self.reference_batch(is_2d) * 2 > self.reference(is_2d)
        return entries > self.reference(is_2d)


@dataclass(frozen=True)
class NetworkPlan:
    """The result, with the numbers that explain it.

    Attributes:
        isotropic_patch: the first patch, equally long in millimetres along all axes.
        clipped_patch: the same, not longer than the median image (nor than ``max_patch_size``).
        first_patch: the same, rounded to legal sizes.
        reductions: how often an edge was shortened to fit memory.
        entries: feature-map entries of one sample of the final patch.
        batch_by_memory, batch_by_share: the two limits of the batch size, before the least of 2.
    """

    spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    isotropic_patch: tuple[int, ...]
    clipped_patch: tuple[float, ...]
    first_patch: tuple[int, ...]
    reductions: int
    topology: Topology
    architecture: Architecture
    entries: int
    reference: float
    batch_by_memory: int
    batch_by_share: int

    @property
    def patch_size(self) -> tuple[int, ...]:
        return self.topology.patch_size

    @property
    def batch_size(self) -> int:
        return max(min(self.batch_by_memory, self.batch_by_share), MIN_BATCH)

    @property
    def is_2d(self) -> bool:
        return len(self.spacing_mm) == 2


def plan_network(spacing_mm: Sequence[float], median_shape: Sequence[float], budget: Budget) -> NetworkPlan:
    """Start from the largest sensible patch and shorten it until one sample fits (method 3.8).

    Args:
        spacing_mm, median_shape: two (in-plane) or three entries, transposed order.
    """
    spacing, median = tuple(map(float, spacing_mm)), tuple(map(float, median_shape))
    max_edge, max_stages = budget.limits.max_patch_size, budget.limits.max_stages
    bounds = median if max_edge is None else tuple(min(edge, max_edge) for edge in median)
    clipped = tuple(float(min(edge, bound)) for edge, bound in zip(isotropic_patch(spacing), bounds, strict=True))
    first = topology = bounded_topology(spacing, clipped, max_edge, max_stages)
    reductions = 0
    while budget.exceeded_by(_entries(topology, budget), is_2d=len(spacing) == 2):
        topology = shortened(topology, spacing, median, budget.limits)
        reductions += 1
    plan = plan_network_for_patch(spacing, median, topology, budget)
    return replace(plan, clipped_patch=clipped, first_patch=first.patch_size, reductions=reductions)


def plan_network_for_patch(
    spacing_mm: Sequence[float], median_shape: Sequence[float], topology: Topology, budget: Budget
) -> NetworkPlan:
    """The plan of a patch that is decided, as by a user; memory then only limits the batch size."""
    spacing, patch = tuple(map(float, spacing_mm)), topology.patch_size
    is_2d = len(spacing) == 2
    entries, reference = _entries(topology, budget), budget.reference(is_2d)
    covered = budget.dataset_voxels * budget.numbers.max_share / float(prod(patch))
    return NetworkPlan(
        spacing_mm=spacing,
        median_shape=tuple(map(float, median_shape)),
        isotropic_patch=isotropic_patch(spacing),
        clipped_patch=tuple(map(float, patch)),
        first_patch=patch,
        reductions=0,
        topology=topology,
        architecture=build_architecture(topology, budget.numbers, budget.limits),
        entries=entries,
        reference=reference,
        batch_by_memory=round((reference / entries) * budget.reference_batch(is_2d)),
        batch_by_share=round(covered),
    )


def isotropic_patch(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Patch of 256 cubed (2048 squared) voxels whose edges are equally long in millimetres (method 3.5)."""
    per_mm = 1 / np.array(spacing_mm, dtype=float)
    dimensions = len(per_mm)
    extent = MAX_EXTENT_2D if dimensions == 2 else MAX_EXTENT_3D
    return tuple(round(edge) for edge in per_mm * (extent**dimensions / np.prod(per_mm)) ** (1 / dimensions))


def shortened(
    topology: Topology, spacing_mm: Sequence[float], median_shape: Sequence[float], limits: PlanningSettings
) -> Topology:
    """Shorten the edge that is longest relative to the median image by one step (method 3.8; ties: the last axis).

    The step is the divisor the network would have after subtracting the present divisor.

    Raises:
        PlansError: the edge cannot get shorter; the memory target is too small for any patch.
    """
    patch = list(topology.patch_size)
    axes = [axis for axis, edge in enumerate(patch) if edge > topology.divisors[axis]]
    if not axes:
        raise PlansError(
            f"planning.gpu_memory_gb {limits.gpu_memory_gb}: not even a patch of {sizes(patch)} voxels fits; raise it"
        )
    axis = max(axes, key=lambda candidate: (patch[candidate] / median_shape[candidate], candidate))
    trial = list(patch)
    trial[axis] -= topology.divisors[axis]
    patch[axis] -= bounded_topology(spacing_mm, trial, limits.max_patch_size, limits.max_stages).divisors[axis]
    return bounded_topology(spacing_mm, patch, limits.max_patch_size, limits.max_stages)


def build_architecture(topology: Topology, numbers: PlannerNumbers, limits: PlanningSettings) -> Architecture:
    """The planned network for a topology: features double every stage up to the limit (method 3.7)."""
    stages = topology.n_stages
    limit = limits.max_features_2d if len(topology.patch_size) == 2 else limits.max_features_3d
    blocks = numbers.encoder_blocks
    return Architecture(
        kind=numbers.kind,
        features_per_stage=tuple(min(limit, limits.base_features * 2**stage) for stage in range(stages)),
        kernel_sizes=topology.kernels,
        strides=topology.strides,
        blocks_per_stage=tuple(blocks[min(stage, len(blocks) - 1)] for stage in range(stages)),
        convs_per_stage_decoder=(numbers.decoder_convs,) * (stages - 1),
    )


def _entries(topology: Topology, budget: Budget) -> int:
    architecture = build_architecture(topology, budget.numbers, budget.limits)
    return feature_map_entries(architecture, topology.patch_size, budget.num_labels)
