"""Raw cases of every kind, made from a number, with plans for them: what few datasets have, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.parity.datasets import READER, grid

from benchmarks.peer.common import SEED
from benchmarks.peer.random_datasets import CHANNELS, UNIT_SLICE_MM
from segwright.core.labels import Labels
from segwright.core.plans import Plans
from segwright.core.settings import PlanningSettings
from segwright.images.image import Image, LabelMap
from segwright.planning import make_plans

KINDS = ("full", "zero border", "zero border and holes", "scattered zeros", "a zero channel", "all zero", "a constant")
SPACINGS_MM = (0.5, 0.7, 1.0, 2.0, 3.0, 3.3, 6.0)
"""Two of them are exactly 3 times, or a little more than 3 times, as coarse as a third."""
LABELS: tuple[dict[str, Any], ...] = (
    {"labels": {"background": 0, "a": 1}},
    {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}},
    {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}},
    {"labels": {"background": 0, "whole": [1, 2, 3], "core": [3, 2], "one": [3]}, "regions_class_order": [1, 2, 3]},
    {"labels": {"background": 0, "both": [2, 1], "one": 1, "ignore": 3}, "regions_class_order": [1, 2]},
)
STATISTICS = {
    "max": 100.0, "mean": 40.0, "median": 41.0, "min": 0.0, "percentile_00_5": 5.0, "percentile_99_5": 88.0,
    "std": 12.3,
}  # fmt: skip


@dataclass(frozen=True)
class RawCase:
    """A case as readers give it; the label map also lies where the image is zero, may lack labels, or all of them."""

    image: Image
    label: LabelMap
    facts: dict[str, Any]
    plans: Plans

    @property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(self.facts["channel_names"].values())


def random_case(number: int) -> RawCase:
    """The case of this number, always the same."""
    rng = np.random.default_rng([SEED, number])
    flat = rng.random() < 0.2
    shape = (1, *_whole(rng, 3, 40, 2)) if flat else _whole(rng, 1, 24, 3)
    spacing = (UNIT_SLICE_MM, 1.0, 1.0) if flat else tuple(float(edge) for edge in rng.choice(SPACINGS_MM, 3))
    names = [str(name) for name in rng.choice(CHANNELS, int(rng.integers(1, 4)))]
    facts = {
        **LABELS[number % len(LABELS)], "channel_names": {str(index): name for index, name in enumerate(names)},
        "numTraining": 3, "file_ending": ".nii.gz",
    }  # fmt: skip
    geometry = grid(shape, spacing)  # type: ignore[arg-type]
    image = Image(_image(KINDS[number % len(KINDS)], (len(names), *shape), rng), geometry, "float32")
    label = LabelMap(_label(Labels.from_json(facts).declared_labels, shape, rng), geometry, "uint8")
    others_mm = [edge if edge == UNIT_SLICE_MM else edge * float(rng.choice([1, 1, 1.3, 0.6])) for edge in spacing]
    fingerprint = {
        "spacings": [others_mm], "shapes_after_crop": [list(shape)],
        "median_relative_size_after_cropping": float(rng.choice([1, 0.5])),
        "foreground_intensity_properties_per_channel": {str(index): STATISTICS for index in range(len(names))},
    }  # fmt: skip
    settings = PlanningSettings(transpose=bool(rng.random() < 0.8))
    plans, _ = make_plans(fingerprint, facts, settings, "Dataset903_Made", READER)
    return RawCase(image, label, facts, plans)


def _image(kind: str, shape_czyx: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    image = rng.uniform(0, 100, shape_czyx).astype(np.float32)
    if kind.startswith("zero border"):
        inside = [slice(int(rng.integers(0, max(1, edge // 3))), edge - int(rng.integers(0, max(1, edge // 3))))
                  for edge in shape_czyx[1:]]  # fmt: skip
        body = np.zeros(shape_czyx[1:], bool)
        body[tuple(inside)] = True
        if kind.endswith("holes"):
            body &= rng.random(body.shape) > 0.2
        image *= body
    elif kind == "scattered zeros":
        image *= rng.random(shape_czyx) > 0.6
    elif kind == "a zero channel":
        image[0] = 0
    elif kind == "all zero":
        image[:] = 0
    elif kind == "a constant":
        image[-1] = 64  # sums of it are exact in float32, too
    return image


def _label(values: tuple[int, ...], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    label = rng.choice(values, shape).astype(np.uint8)
    share = rng.choice([0, 0.2, 1], p=[0.15, 0.5, 0.35])
    return np.where(rng.random(shape) < share, label, 0).astype(np.uint8)


def _whole(rng: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(int(edge) for edge in rng.integers(low, high, count))
