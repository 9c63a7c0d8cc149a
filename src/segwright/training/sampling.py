"""Which part of which case a sample shows (method 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segwright.core.labels import LabelKey
from segwright.training.augmentation.interpolation import OUTSIDE_LABEL
from segwright.training.augmentation.spatial import read_padded


def sample_generator(seed: int, epoch: int, step: int, sample: int, training: bool) -> np.random.Generator:
    """The source of every random draw of one sample: the same for any number of workers and interruptions."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, step, sample, int(training)])))


def must_show_foreground(sample: int, batch_size: int, foreground_share: float) -> bool:
    """Whether a sample is centred on foreground by its position in the batch: the last share of them (method 5.2)."""
    return sample >= round(batch_size * (1 - foreground_share))


def start_bounds(
    case_shape: Sequence[int], loader_patch: Sequence[int], final_patch: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Smallest and largest start of a loader patch, both included, per axis (method 5.3).

    The network's patch reaches the case's borders; the loader patch around it may lie beyond them.
    """
    lowest, highest = [], []
    for edge, loader_edge, final_edge in zip(case_shape, loader_patch, final_patch, strict=True):
        padding = loader_edge - final_edge
        if padding + edge < loader_edge:
            padding = loader_edge - edge
        lowest.append(-padding // 2)
        highest.append(edge + padding // 2 + padding % 2 - loader_edge)
    return tuple(lowest), tuple(highest)


def draw_start(
    rng: np.random.Generator,
    case_shape: Sequence[int],
    loader_patch: Sequence[int],
    final_patch: Sequence[int],
    class_locations: Mapping[LabelKey, np.ndarray],
    foreground: bool,
    annotated_key: tuple[int, ...],
    has_ignore: bool,
) -> tuple[int, ...]:
    """First voxel of a loader patch, which may be negative (method 5.3).

    Args:
        case_shape, loader_patch, final_patch: three edges each, axis 0 first; a 2-D patch has 1 there.
        class_locations: (k, 3) voxel indices per label or region, and of all annotated voxels under
            ``annotated_key`` in datasets with an ignore label.
        foreground: the sample must show a label or region; which one is drawn with equal chances among those present.
        has_ignore: other samples are centred on an annotated voxel then.
    """
    lowest, highest = start_bounds(case_shape, loader_patch, final_patch)
    key: LabelKey | None = None
    if foreground:
        eligible = [key for key, voxels in class_locations.items() if len(voxels)]
        if len(eligible) > 1:
            eligible = [key for key in eligible if key != annotated_key]
        if eligible:
            key = eligible[int(rng.integers(len(eligible)))]
    elif has_ignore and len(class_locations.get(annotated_key, ())):
        key = annotated_key
    if key is None:
        return tuple(int(rng.integers(low, high + 1)) for low, high in zip(lowest, highest, strict=True))
    voxels = class_locations[key]
    centre = voxels[int(rng.integers(len(voxels)))]
    # No upper limit, as in v2: the patch may stick out there.
    return tuple(max(low, int(v) - edge // 2) for low, v, edge in zip(lowest, centre, loader_patch, strict=True))


@dataclass(frozen=True)
class CaseWindow:
    """The loader patch of one sample: nothing is read before it is asked for.

    Attributes:
        image: (channels, z, y, x), usually a memory map.
        label_maps: (z, y, x) each: the label map and, in a cascade, the previous stage's.
        start: first voxel of the window in the case, three axes.
        edges: edge lengths of the window, three axes.
        flat: drop axis 0, which is one slice thick (2-D configurations).
    """

    image: np.ndarray
    label_maps: tuple[np.ndarray, ...]
    start: tuple[int, ...]
    edges: tuple[int, ...]
    flat: bool = False

    @property
    def channels(self) -> int:
        return len(self.image)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.edges[1:] if self.flat else self.edges

    def read(self, lower: Sequence[int], upper: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Image float32 and labels (maps, ...) of a part of the window; beyond the window or the case 0 and -1.

        The part must lie within the window, whose borders only :mod:`spatial` crosses, by its own padding.
        """
        if self.flat:
            lower, upper = (0, *lower), (1, *upper)
        low = [first + step for first, step in zip(self.start, lower, strict=True)]
        high = [first + step for first, step in zip(self.start, upper, strict=True)]
        image = read_padded(self.image, low, high, 0.0, np.float32)
        dtype = np.result_type(*(signed_type(label.dtype) for label in self.label_maps))
        labels = np.concatenate(
            [read_padded(label[None], low, high, OUTSIDE_LABEL, dtype) for label in self.label_maps]
        )
        return (image[:, 0], labels[:, 0]) if self.flat else (image, labels)


def signed_type(dtype: np.dtype) -> np.dtype:
    """The smallest signed integer type that holds every label of an array of this type, and -1."""
    return np.promote_types(dtype, np.int8)
