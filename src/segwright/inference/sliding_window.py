"""The sliding window: from an image of any size to the scores of a network that sees one patch (method 10.2, 10.3).

Tiles overlap, each is predicted for the image as it is and for its mirror images, and is added with a weight that falls
towards its border. Everything is summed in float32. nnU-Net v2 sums in float16, which changes logits by up to 0.5 where
only tile corners reach, so equality with it holds up to that rounding (docs/explanation/differences.md).
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segwright.networks.device import is_out_of_memory, release_cached_memory, to_device

log = logging.getLogger(__name__)

Network = Callable[[Tensor], Tensor]
"""Patches (n, channels, [z], y, x) -> logits (n, outputs, [z], y, x)."""

_SIGMA_SHARE = 1 / 8  # of the patch edge
_GAUSSIAN_MAXIMUM = 10.0
_VOXELS_PER_BATCH = 1 << 20  # small tiles go to an accelerator together ...
_VOXELS_PER_BATCH_CPU = 1 << 14  # ... on a CPU only as long as they fit its caches (measured)


@dataclass(frozen=True)
class Window:
    """How an image is cut into tiles and what is made of their predictions.

    Attributes:
        patch_size: ([z], y, x); two entries predict every plane for itself.
        tile_step: distance of tiles as a share of the patch.
        gaussian: weight the centre of a tile more than its border.
        mirror_axes: spatial axes of the patch (0 = its first) of which all combinations are flipped and averaged.
        activation: None averages logits; else applied to the logits of each mirror image before averaging.
        autocast: reduced precision of the network, or None for float32.
    """

    patch_size: tuple[int, ...]
    num_outputs: int
    tile_step: float = 0.5
    gaussian: bool = True
    mirror_axes: tuple[int, ...] = ()
    activation: Literal["softmax", "sigmoid"] | None = None
    autocast: torch.dtype | None = None


@dataclass(frozen=True)
class Input:
    """What the network sees, read tile by tile, so that no padded or one-hot copy of a whole image is made.

    Attributes:
        image_czyx: float32 (channels, z, y, x), may be a read-only memory map.
        previous_label_zyx: label map of a cascade's previous stage, or None.
        previous_labels: foreground labels, each of which becomes one more input channel.
    """

    image_czyx: np.ndarray
    previous_label_zyx: np.ndarray | None = None
    previous_labels: tuple[int, ...] = ()

    def tile(self, starts_zyx: Sequence[int], size_zyx: Sequence[int]) -> np.ndarray:
        """Float32 (channels + labels, *size); 0 where the tile reaches beyond the image."""
        channels, *shape = self.image_czyx.shape
        where, part = _overlap(starts_zyx, size_zyx, shape)
        tile = np.zeros((channels + len(self.previous_labels), *size_zyx), np.float32)
        tile[(slice(0, channels), *part)] = self.image_czyx[(slice(None), *where)]
        if self.previous_label_zyx is not None:
            previous_zyx = self.previous_label_zyx[where]
            for number, value in enumerate(self.previous_labels):
                tile[(channels + number, *part)] = previous_zyx == value
        return tile


def tile_positions(shape: Sequence[int], patch_size: Sequence[int], tile_step: float) -> list[tuple[int, ...]]:
    """First voxels of the tiles per axis, as few as possible at steps of at most ``tile_step`` patches (method 10.2).

    Axes shorter than the patch are treated as padded to it: one tile at 0.
    """
    positions = []
    for length, patch in zip(shape, patch_size, strict=True):
        rest = max(length, patch) - patch
        count = int(min(rest, np.ceil(rest / (patch * tile_step)))) + 1  # steps of less than a voxel repeat tiles
        step = rest / (count - 1) if count > 1 else 0.0
        positions.append(tuple(int(np.round(step * number)) for number in range(count)))
    return positions


@lru_cache(maxsize=4)
def gaussian_weights(patch_size: tuple[int, ...]) -> np.ndarray:
    """Weights of a tile's voxels, float32, read-only (method 10.3).

    A Gaussian with sigma = an eighth of the patch, scaled to a maximum of 10 and rounded to float16 as in v2 (so that
    logits agree with v2's); what became 0 takes the smallest weight that did not.
    """
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros(patch_size)
    impulse[tuple(edge // 2 for edge in patch_size)] = 1
    weights = gaussian_filter(impulse, [edge * _SIGMA_SHARE for edge in patch_size], mode="constant", cval=0)
    weights /= weights.max() / _GAUSSIAN_MAXIMUM
    weights = weights.astype(np.float32).astype(np.float16).astype(np.float32)  # torch, too, rounds doubles twice
    weights[weights == 0] = weights[weights > 0].min()
    weights.setflags(write=False)
    return weights


def predict_scores(network: Network, source: Input, window: Window, device: torch.device) -> Tensor:
    """Scores of the whole image: float32 (outputs, z, y, x), on ``device`` or, where it is too small, on the CPU.

    Raises:
        RuntimeError: the device cannot even hold the network and one batch of tiles (``is_out_of_memory``).
    """
    try:
        return _accumulate(network, source, window, device, device)
    except RuntimeError as problem:
        if device.type == "cpu" or not is_out_of_memory(problem):
            raise
        shape = source.image_czyx.shape[1:]
    log.info("the scores of an image of %s voxels do not fit on %s; they are summed on the CPU", shape, device)
    release_cached_memory(device)
    return _accumulate(network, source, window, device, torch.device("cpu"))


@torch.inference_mode()
def _accumulate(network: Network, source: Input, window: Window, device: torch.device, sums_on: torch.device) -> Tensor:
    shape = source.image_czyx.shape[1:]
    size = (1,) * (3 - len(window.patch_size)) + window.patch_size
    tiles, alone = _tiles(shape, window)
    sums = torch.zeros((window.num_outputs, *shape), dtype=torch.float32, device=sums_on)
    if alone:  # weighting and dividing by the weight would only add rounding
        for starts, scores in _predict_tiles(network, source, window, tiles, size, device):
            where, part = _overlap(starts, size, shape)
            sums[(slice(None), *where)] = scores[(slice(None), *part)].to(sums_on)
        return sums
    weights = torch.from_numpy(_weights(window).reshape(size)).to(device)
    weights_there = weights.to(sums_on)
    total = torch.zeros(shape, dtype=torch.float32, device=sums_on)
    for starts, scores in _predict_tiles(network, source, window, tiles, size, device):
        where, part = _overlap(starts, size, shape)
        sums[(slice(None), *where)] += (scores * weights)[(slice(None), *part)].to(sums_on)
        total[where] += weights_there[part]
    sums /= total
    return sums


def _tiles(shape_zyx: Sequence[int], window: Window) -> tuple[list[tuple[int, ...]], bool]:
    """First voxels (z, y, x) of all tiles in order, and whether every voxel lies in one tile only.

    An axis shorter than the patch is seen with a border, half of it below and the larger half above (method 10.2), so
    a tile may begin before the image. A 2-D window takes every plane for itself.
    """
    planes = 3 - len(window.patch_size)
    in_tile = tile_positions(shape_zyx[planes:], window.patch_size, window.tile_step)
    borders = [max(0, edge - length) // 2 for edge, length in zip(window.patch_size, shape_zyx[planes:], strict=True)]
    shifted = [tuple(start - border for start in starts) for starts, border in zip(in_tile, borders, strict=True)]
    tiles = list(itertools.product(*(range(length) for length in shape_zyx[:planes]), *shifted))
    return tiles, all(len(starts) == 1 for starts in in_tile)


def _predict_tiles(
    network: Network,
    source: Input,
    window: Window,
    tiles: Sequence[tuple[int, ...]],
    size: tuple[int, ...],
    device: torch.device,
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """(first voxel, scores (outputs, z, y, x) on ``device``) of every tile, in order."""
    at_once = max(1, (_VOXELS_PER_BATCH_CPU if device.type == "cpu" else _VOXELS_PER_BATCH) // math.prod(size))
    for begin in range(0, len(tiles), at_once):
        batch = tiles[begin : begin + at_once]
        patches = np.stack([source.tile(starts, size) for starts in batch])
        patches = patches.reshape(*patches.shape[:2], *window.patch_size)
        scores = predict_mirrored(network, to_device(patches, device), window)
        yield from zip(batch, scores.reshape(len(batch), window.num_outputs, *size), strict=True)


def predict_mirrored(network: Network, patches: Tensor, window: Window) -> Tensor:
    """Mean of the predictions of ``patches`` (n, channels, [z], y, x) and all their flips, float32.

    The plain patch comes first, then flips of one axis, of two, of three, as in v2.
    """
    axes = sorted(axis + 2 for axis in window.mirror_axes)
    flips = [combination for count in range(len(axes) + 1) for combination in itertools.combinations(axes, count)]
    total: Tensor | None = None
    with torch.autocast(patches.device.type, window.autocast, enabled=window.autocast is not None):
        for flip in flips:
            scores = network(torch.flip(patches, flip) if flip else patches)
            scores = _activate(scores.float(), window)
            scores = torch.flip(scores, flip) if flip else scores
            total = scores if total is None else total.add_(scores)
    assert total is not None  # there is always the plain patch
    return total / len(flips) if len(flips) > 1 else total


def _activate(logits: Tensor, window: Window) -> Tensor:
    if window.activation == "softmax":
        return torch.softmax(logits, 1)
    return torch.sigmoid(logits) if window.activation == "sigmoid" else logits


def _weights(window: Window) -> np.ndarray:
    if window.gaussian:
        return gaussian_weights(window.patch_size).copy()  # torch takes no read-only arrays
    return np.ones(window.patch_size, np.float32)


def _overlap(
    starts: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a tile lies in the image, and which part of the tile that is (tiles may reach beyond the image)."""
    where, part = [], []
    for start, edge, length in zip(starts, size, shape, strict=True):
        low, high = max(0, start), min(length, start + edge)
        where.append(slice(low, high))
        part.append(slice(low - start, high - start))
    return tuple(where), tuple(part)
