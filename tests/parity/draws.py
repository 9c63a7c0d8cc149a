"""Random draws of segwright's transforms and pipelines as rows of numbers, and how far two sets of rows are apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segwright.core.labels import LabelKey
from segwright.training.augmentation.binary_operator import OPERATORS, RandomBinaryOperator
from segwright.training.augmentation.brightness import RandomBrightness
from segwright.training.augmentation.component_removal import ComponentRemoval, RandomComponentRemoval
from segwright.training.augmentation.contrast import RandomContrast
from segwright.training.augmentation.deep_supervision import supervision_shapes
from segwright.training.augmentation.gamma import Gamma, RandomGamma
from segwright.training.augmentation.gaussian_blur import RandomGaussianBlur
from segwright.training.augmentation.gaussian_noise import GaussianNoise, RandomGaussianNoise
from segwright.training.augmentation.low_resolution import RandomLowResolution
from segwright.training.augmentation.mirror import RandomMirror
from segwright.training.augmentation.pipeline import PatchFacts, SamplePipeline, default_augmentation
from segwright.training.augmentation.ranges import spatial_ranges
from segwright.training.augmentation.spatial import ArrayWindow, RandomSpatial
from tests.parity.twins import REGIONS, Arrays, last_plane, scene

SHAPE = (2, 6, 8, 8)
NAN = math.nan


def _noise(twin: Any) -> list[float]:
    return [0, NAN] if twin is None else [1, twin.sigma]


def _blur(twin: Any) -> list[float]:
    if twin is None:
        return [0, NAN, NAN, NAN, NAN, NAN]
    chosen = [sigma is not None for sigma in twin.sigmas]
    return [1, *chosen, *next((sigma for sigma in twin.sigmas if sigma), (NAN,) * 3)]


def _factors(twin: Any) -> list[float]:
    if twin is None:
        return [0, NAN, NAN, NAN]
    first, second = twin.exponents if isinstance(twin, Gamma) else twin.factors
    return [1, first, second, first < 1]


def _low_resolution(twin: Any) -> list[float]:
    if twin is None:
        return [0, NAN, NAN, NAN, NAN]
    chosen = [scale is not None for scale in twin.scales]
    return [1, *chosen, *next((scale[:2] for scale in twin.scales if scale), (NAN, NAN))]


def matrix_numbers(matrix: np.ndarray) -> list[float]:
    """Whether a matrix turns and zooms, the zoom, and the rotation's entries; NaN where it does not."""
    scale = float(np.linalg.det(matrix) ** (1 / len(matrix)))
    rotation = matrix / scale
    turned, zoomed = abs(rotation - np.eye(len(matrix))).max() > 1e-9, abs(scale - 1) > 1e-9
    return [turned, zoomed, scale if zoomed else NAN, *(rotation.ravel() if turned else [NAN] * matrix.size)]


def _operators(twin: Any) -> list[float]:
    if twin is None or not twin.steps:
        return [twin is not None, NAN if twin is None else 0, *[NAN] * 6]
    channel, operator, radius = twin.steps[0]
    return [1, len(twin.steps), channel, *(operator == name for name in OPERATORS), radius]


def _removal(twin: Any) -> list[float]:
    if twin is None or not twin.picks:
        return [twin is not None, NAN if twin is None else 0, NAN]
    return [1, len(twin.picks), twin.picks[0][0]]


def _noise_field(twin: GaussianNoise) -> list[float]:
    return field_numbers(GaussianNoise(1.0, twin.seed)(np.zeros((2, 4, 4, 4), np.float32)))


def field_numbers(field: np.ndarray) -> list[float]:
    """Of unit noise in two channels: moments, and whether channels and neighbours are related."""
    powers = [float((field**power).mean()) for power in (1, 2, 3, 4)]
    return [*powers, float((field[0] * field[1]).mean()), float((field[..., 1:] * field[..., :-1]).mean())]


DRAW_PATCHES = {"3-D": (12, 12, 12), "in plane": (4, 16, 16), "2-D": (16, 16)}
FOUR_VOXELS = np.zeros((1, 3, 3, 9), np.float32)
FOUR_VOXELS[0, 1, 1, 1::2] = 1
"""One label in four components, each small enough to be removed."""


def _removed(twin: ComponentRemoval) -> list[float]:
    return removed_numbers(FOUR_VOXELS - ComponentRemoval(((0, twin.picks[0][1]),))(FOUR_VOXELS))


def removed_numbers(gone: np.ndarray) -> list[float]:
    return [float(gone[0, 1, 1, 1 + 2 * number]) for number in range(4)]


def draws() -> dict[str, Callable[[np.random.Generator], list[float]]]:
    """Every random transform with v2's defaults: a draw as a row of numbers, NaN where it has none."""
    shape_2d = (3, 6, 6)
    found: dict[str, Callable[[np.random.Generator], list[float]]] = {
        "noise": lambda rng: _noise(RandomGaussianNoise().draw(rng, SHAPE)),
        "noise field": lambda rng: _noise_field(RandomGaussianNoise(1.0).draw(rng, SHAPE)),  # type: ignore[arg-type]
        "blur": lambda rng: _blur(RandomGaussianBlur().draw(rng, SHAPE)),
        "brightness": lambda rng: _factors(RandomBrightness().draw(rng, SHAPE)),
        "contrast": lambda rng: _factors(RandomContrast().draw(rng, SHAPE)),
        "low resolution": lambda rng: _low_resolution(RandomLowResolution().draw(rng, SHAPE)),
        "low resolution in plane": lambda rng: _low_resolution(RandomLowResolution(keep_axis_0=True).draw(rng, SHAPE)),
        "gamma": lambda rng: _factors(RandomGamma(0.3, inverted=False).draw(rng, SHAPE)),
        "gamma inverted": lambda rng: _factors(RandomGamma(0.1, inverted=True).draw(rng, SHAPE)),
        "mirror": lambda rng: [axis in RandomMirror((0, 1, 2)).draw(rng).axes for axis in range(3)],
        "binary operators": lambda rng: _operators(RandomBinaryOperator().draw(rng, shape_2d)),
        "component removal": lambda rng: _removal(RandomComponentRemoval().draw(rng, shape_2d)),
        "removed component": lambda rng: _removed(RandomComponentRemoval(1.0, 1.0).draw(rng, (1, 4, 4))),  # type: ignore[arg-type]
    }
    for name, patch in DRAW_PATCHES.items():
        ranges = spatial_ranges(patch)
        random = RandomSpatial(patch, ranges.rotation_rad, ranges.in_plane)
        found[f"spatial {name}"] = lambda rng, random=random: matrix_numbers(random.draw(rng).matrix)
    return found


@dataclass(frozen=True)
class PipelineCase:
    """A whole pipeline: what both sides need to build theirs."""

    patch: tuple[int, ...]
    mask: tuple[bool, bool] = (False, True)
    previous: tuple[int, ...] = ()
    regions: tuple[LabelKey, ...] | None = None

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        return tuple((edge,) * len(self.patch) for edge in (1, 2, 2))

    @property
    def inputs(self) -> Arrays:
        """A window as the loader reads it; labels of the previous stage only in a cascade."""
        edges = spatial_ranges(self.patch).loader_patch_size
        image, labels = scene(edges if len(edges) == 3 else (6, *edges))  # type: ignore[arg-type]
        if len(edges) == 2:
            image, labels = last_plane(image), last_plane(labels)
        return image, labels[: 2 if self.previous else 1]


PIPELINES = {
    "3-D": PipelineCase((12, 14, 10)),
    "in plane": PipelineCase((4, 16, 14), mask=(False, False)),
    "2-D": PipelineCase((16, 20)),
    "cascade with regions": PipelineCase((10, 12, 12), previous=(1, 2, 3), regions=REGIONS),
}


def our_pipeline(case: PipelineCase) -> Callable[[np.random.Generator], list[float]]:
    ranges = spatial_ranges(case.patch)
    facts = PatchFacts(case.patch, ranges.rotation_rad, ranges.in_plane, ranges.flip_axes)
    shapes = supervision_shapes(case.patch, case.strides, True)
    pipeline = SamplePipeline(
        case.patch,
        ranges.loader_patch_size,
        default_augmentation(facts),
        case.mask,
        case.previous,
        case.regions,
        shapes,
    )
    window = ArrayWindow(*case.inputs)
    return lambda rng: sample_numbers(*pipeline(window, rng))


def sample_numbers(image: np.ndarray, targets: list[np.ndarray]) -> list[float]:
    """Numbers of one sample: channels' means, spreads, roughness, lean to one side, zeros; labels of all targets."""
    numbers: list[float] = []
    for channel in image:
        values = np.asarray(channel, np.float64)
        half = values.shape[-1] // 2
        numbers += [
            values.mean(), values.std(),
            np.abs(np.diff(values, axis=-1)).mean(), np.abs(np.diff(values, axis=0)).mean(),
            values[..., :half].mean() - values[..., half:].mean(), (values == 0).mean(),
        ]  # fmt: skip
    for target in targets:
        shown = target if len(target) > 1 else np.stack([target[0] == value for value in (1, 2, 3)])
        numbers += [float(channel.mean()) for channel in shown]
    return [float(number) for number in numbers]


@dataclass(frozen=True)
class Moments:
    """Means of some numbers over draws, with what their standard errors need."""

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, rows: list[list[float]]) -> Moments:
        """Of all numbers, their squares and the products of neighbours; NaN does not count."""
        values = np.asarray(rows, np.float64)
        values = np.concatenate([values, values**2, values[:, 1:] * values[:, :-1]], axis=1)
        count = (~np.isnan(values)).sum(axis=0)
        mean = np.nansum(values, axis=0) / np.maximum(count, 1)
        return cls(mean, np.nansum((values - mean) ** 2, axis=0) / np.maximum(count - 1, 1), count)

    def standard_errors(self, other: Moments) -> np.ndarray:
        """How far the two means are apart, in the standard error of their difference; 0 where nothing was drawn."""
        difference = np.abs(self.mean - other.mean)
        error = np.sqrt(self.variance / np.maximum(self.count, 1) + other.variance / np.maximum(other.count, 1))
        one_sided = (self.count == 0) != (other.count == 0)
        # Numbers that never change must be equal, but for the single precision the peer keeps some of them in.
        apart = np.where(error > 1e-7, difference / np.maximum(error, 1e-7), np.where(difference > 1e-6, np.inf, 0.0))
        return np.where(one_sided, np.inf, apart)

    def to_json(self) -> dict[str, list[float]]:
        return {
            name: [float(f"{value:.10g}") for value in getattr(self, name)] for name in ("mean", "variance", "count")
        }

    @classmethod
    def from_json(cls, content: dict[str, list[float]]) -> Moments:
        return cls(*(np.asarray(content[name], np.float64) for name in ("mean", "variance", "count")))


def our_moments(draw: Callable[[np.random.Generator], list[float]], count: int, seed: int) -> Moments:
    rng = np.random.default_rng(seed)
    return Moments.of([draw(rng) for _ in range(count)])
