"""Turning, zooming and mirroring of tensors: see :mod:`segwright.training.augmentation.interpolation` for the rules.

A point's cell has eight corners (four in two dimensions). The image is their weighted sum; of the labels only those at
the corners can win, so scores of eight candidates are enough for any number of labels. All points take this path:
looking for cells of one label, which saves most of the work on a CPU, would make a GPU wait for the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from segwright.training.augmentation.interpolation import OUTSIDE_LABEL, SCORE_OF_ONE
from segwright.training.augmentation.mirror import Mirror
from segwright.training.augmentation.on_device.dispatch import device_version
from segwright.training.augmentation.spatial import WindowPart

_BLOCK_POINTS = 1 << 20  # points times channels handled at a time; they take about 200 MB
_COARSE = 1 << 10  # see _cut


@device_version.register
def resample(twin: WindowPart, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Image (channels, *edges) float32 and labels (maps, *edges) signed integers to their patches."""
    if twin.matrix is None:
        return image, labels
    turned, patch = twin.edges[-len(twin.offset) :], twin.patch_size[-len(twin.offset) :]
    image, labels = image.reshape(-1, *turned), labels.reshape(-1, *turned)
    steps = [[float(step) for step in row] for row in twin.matrix]
    image_flat, labels_flat = _bordered(image, 0).flatten(1), _bordered(labels, OUTSIDE_LABEL).flatten(1)
    rows = max(1, _BLOCK_POINTS // (prod(patch[1:]) * max(len(image), len(labels))))
    images, label_maps = [], []
    for first in range(0, patch[0], rows):
        cell = _Cell(steps, twin.offset, (first, min(first + rows, patch[0])), patch, turned, image.device)
        images.append(cell.sample_image(image_flat))
        label_maps.append(cell.sample_labels(labels_flat))
    image, labels = torch.cat(images, dim=1), torch.cat(label_maps, dim=1)
    return image.reshape(-1, *twin.patch_size), labels.reshape(-1, *twin.patch_size)


@device_version.register
def mirror(twin: Mirror, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    axes = [axis + 1 for axis in twin.axes]
    return image.flip(axes), labels.flip(axes)


class _Cell:
    """The cells in which the points of some rows of a patch lie.

    Attributes:
        indices: for each corner (points,), into a flat array with a border of one voxel.
        weights: (corners, points), 1000 in total.
        nearest: (points,) index of the nearest voxel.
    """

    def __init__(
        self,
        steps: Sequence[Sequence[float]],
        offset: Sequence[float],
        rows: tuple[int, int],
        patch: Sequence[int],
        edges: Sequence[int],
        device: torch.device,
    ) -> None:
        bounds = [rows, *((0, edge) for edge in patch[1:])]
        ranges = [torch.arange(*axis, dtype=torch.float32, device=device) for axis in bounds]
        strides = [prod(edge + 2 for edge in edges[axis + 1 :]) for axis in range(len(edges))]
        base = nearest = torch.zeros((), dtype=torch.int32, device=device)
        shares = []
        for axis_steps, start, edge, stride in zip(steps, offset, edges, strides, strict=True):
            lower, share = _axis_points(axis_steps, start + 1, ranges, edge + 2)
            base = base + lower.int() * stride
            # Halves go to the even index of the array without its border.
            nearest = nearest + ((lower - 1 + share).round().int() + 1) * stride
            shares.append(share)
        self.nearest, self.indices, weights = nearest, [], []
        for corner in product((0, 1), repeat=len(edges)):
            self.indices.append(base + sum(bit * stride for bit, stride in zip(corner, strides, strict=True)))
            weight = torch.full_like(shares[0], float(SCORE_OF_ONE))
            for bit, share in zip(corner, shares, strict=True):
                weight *= share if bit else 1 - share
            weights.append(weight)
        self.weights = torch.stack(weights)

    def sample_image(self, image: Tensor) -> Tensor:
        """(channels, voxels) to (channels, points)."""
        result = image.new_zeros((len(image), len(self.nearest)))
        for index, weight in zip(self.indices, self.weights, strict=True):
            result.addcmul_(image.index_select(1, index), weight)
        return result.div_(float(SCORE_OF_ONE))

    def sample_labels(self, labels: Tensor) -> Tensor:
        """(maps, voxels) to (maps, points): the largest score, among equal ones the nearest voxel's, or the lowest."""
        corners = torch.stack([labels.index_select(1, index) for index in self.indices])  # (corners, maps, points)
        weights = self.weights[:, None]
        nearest = labels.index_select(1, self.nearest)
        winner, best, nearest_score = nearest, weights.new_full(nearest.shape, -1), weights.new_zeros(nearest.shape)
        for candidate in corners:
            score = (weights * (corners == candidate)).sum(dim=0).half().float()
            better = (score > best) | ((score == best) & (candidate < winner))
            winner = torch.where(better, candidate, winner)
            nearest_score = torch.where(candidate == nearest, score, nearest_score)
            best = torch.maximum(best, score)
        return torch.where(nearest_score == best, nearest, winner)


def _axis_points(steps: Sequence[float], start: float, ranges: Sequence[Tensor], edge: int) -> tuple[Tensor, Tensor]:
    """Lower corner (a whole number) and share of the upper one, of all points along one input axis; float32, flat.

    Points beyond the array go to its border.
    """
    coarse, fine = (torch.full((), part, device=ranges[0].device) for part in _cut(start))
    for step, indices in zip(steps, ranges, strict=True):
        coarse_step, fine_step = _cut(step)
        coarse, fine = coarse[..., None] + indices * coarse_step, fine[..., None] + indices * fine_step
    lower = coarse.floor()
    share = coarse - lower + fine
    beyond = share.floor()
    lower, share = (lower + beyond).flatten(), (share - beyond).flatten()
    share = share.masked_fill(lower < 0, 0).masked_fill(lower > edge - 2, 1)
    return lower.clamp(0, edge - 2), share


def _cut(value: float) -> tuple[float, float]:
    """A multiple of 2^-10, whose products and sums are exact in single precision up to 2^14 voxels, and a small rest.

    Plain sums of coordinates would be off by 1e-5 voxels in a patch of 200.
    """
    coarse = round(value * _COARSE) / _COARSE
    return coarse, value - coarse


def _bordered(array: Tensor, fill: int) -> Tensor:
    """With one more voxel at every end of all axes but the first."""
    result = array.new_full((len(array), *(edge + 2 for edge in array.shape[1:])), fill)
    result[(slice(None), *(slice(1, -1),) * (array.ndim - 1))] = array
    return result
