"""Random datasets for planners: fingerprints, dataset.json entries and planner settings of every kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.peer.common import SEED
from segwright.core.settings import PlanningSettings

KINDS = (
    "isotropic", "anisotropic", "tiny", "huge", "2d", "many channels", "regions", "ignore", "mixed spacings", "thin",
    "cube", "extreme",
)  # fmt: skip
PLANNERS = ("default", "resenc", "resenc_m", "resenc_l", "resenc_xl")
MEMORY_GB = (None, 4.0, 8.0, 11.0, 24.0, 40.0, 80.0)
ALL = len(KINDS) * len(PLANNERS) * len(MEMORY_GB)
"""So many datasets hold every kind with every planner and memory target: the three counts share no divisor."""
CHANNELS = ("CT", "MRI", "noNorm", "zscore", "rescale_to_0_1", "rgb_to_0_1", "T1", "ct")
EDGE_KINDS = ("3 times", "a little more than 3 times", "2 times", "powers of two", "a quarter", "a few voxels")
EDGES_VOXELS = (4, 7, 8, 11, 12, 15, 16, 23, 24, 31, 32, 48, 64, 96, 128, 256, 512)
"""Where rules about halving begin to hold, and just before."""
UNIT_SLICE_MM = 999.0
"""Spacing of the axis a 2-D image does not have (method 1.3)."""


@dataclass(frozen=True)
class RandomDataset:
    """What planners read."""

    name: str
    kind: str
    fingerprint: dict[str, Any]
    facts: dict[str, Any]
    settings: PlanningSettings

    def to_json(self) -> dict[str, Any]:
        chosen = {key: asdict(self.settings)[key] for key in ("planner", "gpu_memory_gb", "spacing_mm", "transpose")}
        return {
            "name": self.name, "kind": self.kind, "fingerprint": self.fingerprint, "facts": self.facts,
            "settings": chosen,
        }  # fmt: skip


def random_dataset(number: int) -> RandomDataset:
    """The dataset of this number, always the same."""
    rng = np.random.default_rng([SEED, number])
    kind, planner = KINDS[number % len(KINDS)], PLANNERS[number % len(PLANNERS)]
    spacing, shape = grid(kind, rng)
    vary = 0.0 if kind == "cube" else 0.4 if kind == "mixed spacings" else float(rng.choice([0, 0.05, 0.3]))
    spacings, shapes = [], []
    for _ in range(int(rng.integers(1, 10))):
        digits = int(rng.choice([2, 4, 7]))
        spacings.append([
            edge if edge == UNIT_SLICE_MM else round(edge * (1 + vary * float(rng.uniform(-1, 1))), digits)
            for edge in spacing
        ])  # fmt: skip
        shapes.append([
            1 if edge == 1 else max(1, round(edge * (1 + vary * float(rng.uniform(-1, 1))))) for edge in shape
        ])  # fmt: skip
    many = rng.integers(5, 15) if kind == "many channels" else rng.integers(1, 3)
    channels = [str(name) for name in rng.choice(CHANNELS, many)]
    count = len(spacings)
    facts: dict[str, Any] = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "numTraining": int(rng.choice([count, count * 10, rng.integers(1, 600)])),
        "file_ending": ".nii.gz",
        **labels(kind, rng),
    }
    own_spacing = kind != "2d" and rng.random() < 0.15
    settings = PlanningSettings(
        planner=planner,
        gpu_memory_gb=MEMORY_GB[number % len(MEMORY_GB)],
        spacing_mm=tuple(round(float(edge), 3) for edge in rng.uniform(0.5, 4, 3)) if own_spacing else None,
        transpose=bool(rng.random() > 0.1),
    )
    fingerprint = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "median_relative_size_after_cropping": float(rng.choice([1.0, 0.9, 0.75, 0.74, 0.3])),
        "foreground_intensity_properties_per_channel": {str(index): statistics(rng) for index in range(len(channels))},
    }
    return RandomDataset(f"Dataset{number + 1:03d}_Random", kind, fingerprint, facts, settings)


def edge_dataset(number: int) -> RandomDataset:
    """A dataset on the edge of a rule: ratios of exactly 3 or 2, equal axes, a few voxels, one case."""
    rng = np.random.default_rng([SEED, 1, number])
    kind, planner = EDGE_KINDS[number % len(EDGE_KINDS)], PLANNERS[number % len(PLANNERS)]
    unit = float(rng.choice([0.5, 0.8, 1.0, 1.5, 2.0]))
    spacing, shape = edge_grid(kind, unit, rng)
    order = rng.permutation(3)
    channels = [str(name) for name in rng.choice((*CHANNELS, "Ct", "NONORM", "ZScore", "RGB_to_0_1"), 2)]
    cases = [(list(spacing), list(shape)) for _ in range(int(rng.integers(1, 5)))]
    if rng.random() < 0.3:
        cases[0][0][int(np.argmax(spacing))] /= float(rng.choice([2, 4, 10]))
    fingerprint = {
        "spacings": [[case_mm[axis] for axis in order] for case_mm, _ in cases],
        "shapes_after_crop": [[edges[axis] for axis in order] for _, edges in cases],
        "median_relative_size_after_cropping": float(rng.choice([1.0, 0.75, np.nextafter(0.75, 0)])),
        "foreground_intensity_properties_per_channel": {str(index): statistics(rng) for index in range(2)},
    }
    facts: dict[str, Any] = {
        "channel_names": dict(zip("01", channels, strict=True)), "numTraining": int(rng.choice([1, 2, 40, 500])),
        "file_ending": ".nii.gz", **labels("regions" if rng.random() < 0.2 else kind, rng),
    }  # fmt: skip
    memory_gb = (None, 2.0, 6.0, 16.0, 100.0)[int(rng.integers(5))]
    settings = PlanningSettings(planner=planner, gpu_memory_gb=memory_gb, transpose=bool(rng.random() > 0.15))
    return RandomDataset(f"Dataset{number + 1:03d}_Edge", f"edge, {kind}", fingerprint, facts, settings)


def edge_grid(kind: str, unit: float, rng: np.random.Generator) -> tuple[list[float], list[int]]:
    """Spacing and shape of the cases of an :func:`edge_dataset`."""
    slices = int(rng.integers(4, 60))
    if kind == "3 times":
        return [3 * unit, unit, unit], [slices, 3 * slices, 3 * slices]
    if kind == "a little more than 3 times":
        return [3 * unit + 1e-6, unit, unit], [slices, 3 * slices + 1, 3 * slices + 1]
    if kind == "2 times":
        return [2 * unit, unit, unit], [int(2**power) for power in rng.integers(2, 9, 3)]
    if kind == "powers of two":
        return [float(2.0**power) for power in rng.integers(-1, 3, 3)], [
            int(edge) for edge in rng.choice(EDGES_VOXELS, 3)
        ]
    if kind == "a quarter":  # about where a patch covers a quarter of the median image
        edge = int(rng.integers(180, 330))
        return [unit] * 3, [edge, edge, int(rng.integers(180, 330))]
    return [unit] * 3, _whole(rng, 1, 20)


def grid(kind: str, rng: np.random.Generator) -> tuple[list[float], list[int]]:
    """Spacing and shape most cases of a dataset are near to."""
    if kind == "isotropic":
        return [1.0, 1.0, 1.0], _whole(rng, 30, 200)
    if kind == "anisotropic":
        in_plane = float(rng.uniform(0.4, 1.5))
        spacing, shape = [float(rng.choice([3, 5, 6.5, 8])), in_plane, in_plane], [*_whole(rng, 8, 60, 1)]
        shape += _whole(rng, 100, 500, 2)
        order = rng.permutation(3)
        return [spacing[axis] for axis in order], [shape[axis] for axis in order]
    if kind == "tiny":
        return _uniform(rng, 0.5, 3), _whole(rng, 2, 15)
    if kind == "huge":
        return _uniform(rng, 0.3, 2), _whole(rng, 300, 1500)
    if kind == "2d":
        return [UNIT_SLICE_MM, 1.0, 1.0], [1, *_whole(rng, 10, 3000, 2)]
    if kind == "cube":
        edge = int(rng.integers(50, 400))
        return [float(rng.choice([1.0, 2.0])), 1.0, 1.0], [edge] * 3
    if kind == "extreme":
        return _uniform(rng, 0.05, 20), _whole(rng, 1, 2000)
    shape = _whole(rng, 10, 600)
    if kind == "thin":
        shape[int(rng.integers(3))] = int(rng.integers(1, 7))
    return _uniform(rng, 0.4, 4), shape


def labels(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Entries of dataset.json."""
    count = int(rng.integers(1, 13))
    ignored = kind == "ignore" or rng.random() < 0.1
    if kind == "regions":
        entries: dict[str, Any] = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
        return {"labels": entries | ({"ignore": 4} if ignored else {}), "regions_class_order": [1, 2, 3]}
    entries = {"background": 0} | {f"label {value}": value for value in range(1, count + 1)}
    return {"labels": entries | ({"ignore": count + 1} if ignored else {})}


def statistics(rng: np.random.Generator) -> dict[str, float]:
    low, median, high = sorted(float(value) for value in rng.uniform(-900, 900, 3))
    return {
        "max": high + 100, "mean": median + 1, "median": median, "min": low - 100, "percentile_00_5": low,
        "percentile_99_5": high, "std": float(rng.uniform(1, 100)),
    }  # fmt: skip


def _whole(rng: np.random.Generator, low: int, high: int, count: int = 3) -> list[int]:
    return [int(edge) for edge in rng.integers(low, high, count)]


def _uniform(rng: np.random.Generator, low: float, high: float) -> list[float]:
    return [float(edge) for edge in rng.uniform(low, high, 3)]
