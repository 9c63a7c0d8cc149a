"""Resizing of tensors axis by axis; see the functions of the same names in ``low_resolution.py``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def reduce_nearest(volume: Tensor, edges: Sequence[int]) -> Tensor:
    """The last ``len(edges)`` axes, by nearest voxel (torch's ``nearest-exact``, which knows no integers)."""
    for axis, to_edge in enumerate(edges, start=volume.ndim - len(edges)):
        from_edge = volume.shape[axis]
        if from_edge != to_edge:
            positions = torch.arange(to_edge, dtype=torch.float32, device=volume.device) + 0.5
            index = (positions * _ratio(from_edge, to_edge)).long().clamp(max=from_edge - 1)
            volume = volume.index_select(axis, index)
    return volume


def enlarge(volume: Tensor, edges: Sequence[int]) -> Tensor:
    """All axes, linearly, with half-voxel centres; values beyond the outermost centres are held."""
    for axis in reversed(range(volume.ndim)):
        from_edge = volume.shape[axis]
        if from_edge == edges[axis]:
            continue
        positions = torch.arange(edges[axis], dtype=torch.float32, device=volume.device) + 0.5
        source = (positions * _ratio(from_edge, edges[axis]) - 0.5).clamp(min=0)
        lower = source.long()
        share = (source - lower).reshape(-1, *(1,) * (volume.ndim - 1 - axis))
        below = volume.index_select(axis, lower)
        above = volume.index_select(axis, (lower + 1).clamp(max=from_edge - 1))
        volume = below + (above - below) * share
    return volume


def _ratio(from_edge: int, to_edge: int) -> float:
    """Of single precision, which decides where halves go."""
    return float(np.float32(from_edge) / np.float32(to_edge))
