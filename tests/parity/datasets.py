"""Datasets on disk made of recorded arrays, shared by the recording (benchmarks/peer) and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.dataset import Dataset, load_dataset
from segwright.core.files import write_json
from segwright.core.geometry import Geometry
from segwright.images.readers import write_image, write_label

READER, ENDING = "SimpleITKIO", ".nrrd"
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid(shape_zyx: tuple[int, ...], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    z, y, x = shape_zyx
    return Geometry((z, y, x), spacing_mm, (0.0, 0.0, 0.0), IDENTITY)


def reference_dataset(folder: Path, facts: Mapping[str, Any], references: Mapping[str, np.ndarray]) -> Dataset:
    """A dataset of these label maps, whose images nobody reads.

    Args:
        facts: ``labels``, their order, and ``regions_class_order``.
    """
    _describe(folder, facts, ["x"], len(references))
    (folder / "imagesTr").mkdir()
    for case_id, label_zyx in references.items():
        (folder / "imagesTr" / f"{case_id}_0000{ENDING}").touch()
        write_label(folder / "labelsTr" / f"{case_id}{ENDING}", label_zyx, grid(label_zyx.shape), READER)
    return load_dataset(folder)


def image_dataset(folder: Path, case: Mapping[str, Any], raw_czyx: np.ndarray, label_zyx: np.ndarray) -> Dataset:
    """A recorded case, and a part of it on another grid, so that statistics weigh cases of different sizes.

    Args:
        case: its preprocess slice and spacing, as recorded.
    """
    z, y, x = case["spacing"]
    part = (slice(None, -2 if len(label_zyx) > 2 else None), slice(3, None), slice(None, 18))
    cases = {"whole": ((...,), (z, y, x)), "part": (part, (z, y * 1.25, x * 0.75))}
    _describe(folder, case["plan"], case["plan"]["channel_names"], len(cases))
    for name, (where, spacing_mm) in cases.items():
        label = np.ascontiguousarray(label_zyx[where])
        geometry = grid(label.shape, spacing_mm)
        for channel, image_zyx in enumerate(raw_czyx):
            file = folder / "imagesTr" / f"{name}_{channel:04d}{ENDING}"
            write_image(file, np.ascontiguousarray(image_zyx[where]), geometry, READER)
        write_label(folder / "labelsTr" / f"{name}{ENDING}", label, geometry, READER)
    return load_dataset(folder)


def _describe(folder: Path, facts: Mapping[str, Any], channels: list[str], count: int) -> None:
    kept = {key: facts[key] for key in ("labels", "label_order", "regions_class_order") if key in facts}
    if "label_order" in kept:  # where the keys of `labels` were sorted on the way
        kept["labels"] = {name: kept["labels"][name] for name in kept.pop("label_order")}
    names = {str(index): name for index, name in enumerate(channels)}
    record = {**kept, "channel_names": names, "numTraining": count, "file_ending": ENDING}
    write_json(folder / "dataset.json", record, sort_keys=False)
