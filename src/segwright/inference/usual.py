"""Images unlike those a model was trained on: predicted all the same, as nnU-Net v2 does, but not without a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segwright.core.geometry import Geometry
from segwright.core.plans import Plans

_FACTOR = 5.0
"""Edges that differ more from the training median are named: slices of 1 and 5 mm are usual in one dataset of CT."""


@dataclass(frozen=True)
class UsualGrid:
    """The median grid of the images a model was trained on, in the files' axes.

    Attributes:
        network_axes: those along which the networks see (two where all of them are 2-D).
    """

    shape_zyx: tuple[float, ...]
    spacing_zyx_mm: tuple[float, ...]
    network_axes: tuple[int, ...]

    @staticmethod
    def of_plans(plans: Plans, patch_sizes: Sequence[Sequence[int]]) -> UsualGrid | None:
        """The grid a plans file tells, which counts its axes transposed; None if it holds no possible one.

        Args:
            patch_sizes: of all networks that predict.
        """
        grids = (plans.original_median_shape, plans.original_median_spacing_mm)
        if not all(len(grid) == 3 and all(0 < edge < math.inf for edge in grid) for grid in grids):
            return None
        shape_zyx, spacing_zyx_mm = (tuple(grid[axis] for axis in plans.transpose_backward) for grid in grids)
        dimensions = max(map(len, patch_sizes))
        return UsualGrid(shape_zyx, spacing_zyx_mm, plans.transpose_forward[3 - dimensions :])

    def difference(self, geometry: Geometry) -> str | None:
        """What is unusual in an image's grid and what to look at, for people; None if nothing is."""
        slices = [axis for axis in self.network_axes if geometry.shape_zyx[axis] == 1 < self.shape_zyx[axis]]
        if slices:
            return (
                f"is a single slice ({_product(geometry.shape_zyx)} voxels), but the model was trained on volumes"
                f" (median {_product(self.shape_zyx)}); do not rely on its segmentation"
            )
        pairs = [(geometry.spacing_zyx[axis], self.spacing_zyx_mm[axis]) for axis in self.network_axes]
        if all(max(found / usual, usual / found) <= _FACTOR for found, usual in pairs):
            return None
        found_mm, usual_mm = _product(geometry.spacing_zyx), _product(self.spacing_zyx_mm)
        return (
            f"has voxels of {found_mm} mm (z, y, x), far from the {usual_mm} mm (median) the model was trained on;"
            " check the spacing in its header, and do not rely on its segmentation"
        )


def _product(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:.4g}" for edge in edges)
