"""Batches that are drawn and read but not augmented, for machines whose GPU does that (``training.augment_on``).

A worker writes of each sample the part of the window it needs, and answers with the draws. Two samples in three need
their patch alone; a turned or zoomed one needs up to the loader patch, which a slot has room for. Around a patch of
128^3 that is 205^3 voxels of 4 bytes a channel and 2 bytes of label: 4 times the patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from segwright.training.augmentation.pipeline import SampleDraw
from segwright.training.augmentation.spatial import WindowPart
from segwright.training.loader import CaseSource, Filled

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class DrawnSample:
    """One sample before augmentation.

    Attributes:
        image: (channels, *part's edges) float32.
        labels: (1, *part's edges) int16, -1 outside the body and the case.
        part: where the patch lies in them.
        draw: what is to be done to the patch.
    """

    image: np.ndarray
    labels: np.ndarray
    part: WindowPart
    draw: SampleDraw


@dataclass(frozen=True)
class DrawnBatch:
    """What :class:`PartSource` makes."""

    samples: tuple[DrawnSample, ...]
    case_ids: tuple[str, ...]


class PartSource(CaseSource):
    """Batches with the cases, windows and draws of ``BatchSource``, not augmented yet. Not for cascades."""

    @property
    def slot_bytes(self) -> int:
        return self.plan.batch_size * sum(_sizes_bytes(self.plan.num_channels, self.pipeline.loader_patch_size))

    def fill(self, epoch: int, step: int, memory: np.ndarray, announce: Callable[[str], None] | None = None) -> Filled:
        """One sample behind the other, each as large as its part of the window."""
        position, case_ids, draws = 0, [], []
        for case_id, window, rng in self.windows(epoch, step, announce):
            draw = self.pipeline.draw(rng, window.channels)
            part = draw.spatial.part(window.shape)
            image, labels, position = self._views(memory, position, part)
            image[...], labels[...] = window.read(part.lower, part.upper)
            case_ids.append(case_id)
            draws.append(draw)
        return Filled(tuple(case_ids), position, tuple(draws))

    def batch(self, memory: np.ndarray, filled: Filled) -> DrawnBatch:
        position, samples = 0, []
        for draw in filled.draws:
            part = draw.spatial.part(self.pipeline.loader_patch_size)
            image, labels, position = self._views(memory, position, part)
            samples.append(DrawnSample(image, labels, part, draw))
        return DrawnBatch(tuple(samples), filled.case_ids)

    def _views(self, memory: np.ndarray, position: int, part: WindowPart) -> tuple[np.ndarray, np.ndarray, int]:
        """Image and labels of a sample that begins at a position, and where the next one begins."""
        channels = self.plan.num_channels
        image_bytes, label_bytes = _sizes_bytes(channels, part.edges)
        image = np.ndarray((channels, *part.edges), np.float32, memory, position)  # type: ignore[arg-type]
        labels = np.ndarray((1, *part.edges), np.int16, memory, position + image_bytes)  # type: ignore[arg-type]
        return image, labels, position + image_bytes + label_bytes


def _sizes_bytes(channels: int, edges: tuple[int, ...]) -> tuple[int, int]:
    """Memory of an image (float32) and its labels (int16), each rounded up so that the next one is aligned."""
    voxels = prod(edges)
    return _aligned(voxels * 4 * channels), _aligned(voxels * 2)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
