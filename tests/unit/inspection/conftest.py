"""A small sound dataset that each test spoils in its own way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segwright.core.dataset import load_dataset
from segwright.core.geometry import Geometry
from segwright.images.readers import write_image, write_label
from segwright.inspection.batch import inspect_batch
from segwright.inspection.checks import Checks, collect_checks

SHAPE = (4, 6, 5)
READER = "SimpleITKIO"


def grid(shape: tuple[int, int, int] = SHAPE, **changes: Any) -> Geometry:
    facts = {
        "shape_zyx": shape, "spacing_zyx": (3.0, 1.0, 1.5), "origin_xyz": (0.0, 0.0, 0.0),
        "direction_xyz": (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
    } | changes  # fmt: skip
    return Geometry(**facts)


@dataclass(frozen=True)
class RawDataset:
    """Writes cases ``a``, ``b``, ... of a raw dataset and inspects it."""

    folder: Path
    output: Path

    def describe(self, **changes: Any) -> None:
        facts = {
            "channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1, "tumour": 2},
            "numTraining": 3, "file_ending": ".nrrd",
        } | changes  # fmt: skip
        (self.folder / "dataset.json").write_text(json.dumps(facts))

    def image(self, name: str, array_zyx: NDArray[Any], folder: str = "imagesTr", **geometry: Any) -> None:
        write_image(self.folder / folder / f"{name}.nrrd", array_zyx, grid(array_zyx.shape, **geometry), READER)

    def label(self, name: str, array_zyx: NDArray[Any], **geometry: Any) -> None:
        write_label(self.folder / "labelsTr" / f"{name}.nrrd", array_zyx, grid(array_zyx.shape, **geometry), READER)

    def inspect(self, test: bool = False) -> Checks:
        dataset = load_dataset(self.folder)
        batch, test_batch = self.output / "inspection" / "batch_0.json", self.output / "test" / "batch_0.json"
        inspect_batch(dataset, [case.case_id for case in dataset.training], batch, batch.parent)
        if not test:
            return collect_checks([batch], dataset)
        inspect_batch(dataset, [case.case_id for case in dataset.test], test_batch, test_batch.parent, test=True)
        return collect_checks([batch], dataset, [test_batch])

    @property
    def batch_file(self) -> Path:
        return self.output / "inspection" / "batch_0.json"


def random_image(seed: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(1, 200, shape).astype(np.int16)


def two_labels(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    label_zyx = np.zeros(shape, np.uint8)
    label_zyx[1:3, 1:4, 1:3] = 1
    label_zyx[2, 2, 2] = 2
    return label_zyx


@pytest.fixture
def raw(tmp_path: Path) -> RawDataset:
    """Three sound cases a, b, c of one channel and labels 0, 1, 2."""
    folder = tmp_path / "Dataset001_Test"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    dataset = RawDataset(folder, tmp_path / "data")
    dataset.describe()
    for seed, name in enumerate("abc"):
        dataset.image(f"{name}_0000", random_image(seed))
        dataset.label(name, two_labels())
    return dataset
