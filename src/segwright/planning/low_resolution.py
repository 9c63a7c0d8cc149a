"""Whether a low-resolution configuration is needed, and at which spacing (method 3.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from segwright.planning.network_plan import Budget, NetworkPlan, plan_network

COVERED_ENOUGH = 0.25
"""A patch covering less than this share of the median image calls for a low-resolution configuration."""
SPACING_STEP = 1.03
MIN_VOXEL_RATIO = 2
"""The low-resolution configuration is dropped unless it has this many times fewer voxels."""


@dataclass(frozen=True)
class LowResolution:
    """Outcome of the search for a low-resolution configuration.

    Attributes:
        plan: the last one tried; None if the full-resolution patch covers enough.
        steps: how often the spacing was raised by 3 %.
        full_coverage, coverage: share of the median image the patch covers, before and after.
        voxel_ratio: full-resolution over low-resolution voxels of the median image.
    """

    plan: NetworkPlan | None
    steps: int
    full_coverage: float
    coverage: float
    voxel_ratio: float

    @property
    def kept(self) -> bool:
        return self.plan is not None and self.voxel_ratio >= MIN_VOXEL_RATIO


def plan_low_resolution(full: NetworkPlan, budget: Budget, num_training: int) -> LowResolution:
    """Raise the spacing in steps of 3 % until a patch covers a quarter of the median image."""
    full_spacing, median = np.array(full.spacing_mm), np.array(full.median_shape)
    spacing, voxels = full_spacing.copy(), float(np.prod(median))
    coverage = full_coverage = float(np.prod(full.patch_size)) / voxels
    plan, steps = None, 0
    while coverage < COVERED_ENOUGH:
        finer = max(spacing) / spacing > 2
        spacing[finer if finer.any() else slice(None)] *= SPACING_STEP
        shape = full_spacing / spacing * median
        voxels = float(np.prod(shape))
        low_budget = replace(budget, dataset_voxels=voxels * num_training)
        plan = plan_network(spacing.tolist(), [max(1, round(edge)) for edge in shape], low_budget)
        coverage = float(np.prod(plan.patch_size)) / voxels
        steps += 1
    return LowResolution(plan, steps, full_coverage, coverage, voxel_ratio=float(np.prod(median)) / voxels)
