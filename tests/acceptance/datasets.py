"""Copies of the real datasets, and what the grid of an image file is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile

LEAST_TRAINING_CASES = 2


def raw_dataset(shared_data: Path, name: str) -> Path:
    """The one dataset folder below ``name``."""
    (folder,) = (shared_data / name).glob("Dataset*")
    return folder


def copy_dataset(source: Path, target: Path) -> Path:
    """Copy a raw dataset with permissions to write."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return target


def set_cases_aside(folder: Path, count: int = 2) -> tuple[str, ...]:
    """Make the last ``count`` labelled cases test cases; fewer if less than two training cases would stay.

    Images and side-cars go from imagesTr to imagesTs, labels from labelsTr to labelsTs; numTraining is corrected.
    """
    facts = json.loads((folder / "dataset.json").read_text())
    ending = facts["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in (folder / "labelsTr").glob(f"*{ending}"))
    aside = cases[max(LEAST_TRAINING_CASES, len(cases) - count) :]
    for kind in ("images", "labels"):
        (folder / f"{kind}Ts").mkdir()
        for path in sorted((folder / f"{kind}Tr").iterdir()):
            if _case_of(path, ending, with_channel=kind == "images") in aside:
                path.rename(folder / f"{kind}Ts" / path.name)
    facts["numTraining"] = len(cases) - len(aside)
    (folder / "dataset.json").write_text(json.dumps(facts))
    return tuple(aside)


def _case_of(path: Path, ending: str, *, with_channel: bool) -> str:
    """Case of an image, label or spacing side-car file."""
    if not path.name.endswith(ending):
        return path.stem
    name = path.name.removesuffix(ending)
    return name.rsplit("_", 1)[0] if with_channel else name


def grid_of(path: Path, side_car: Path | None = None) -> dict[str, Any]:
    """Shape, and spacing, origin and direction where the format knows them; of a TIFF the spacing of its side-car."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            shape = file.series[0].shape
        spacing = None if side_car is None else json.loads(side_car.read_text())["spacing"]
        return {"shape": shape, "spacing": spacing}
    image = sitk.ReadImage(str(path))
    if path.suffix == ".png":
        return {"shape": image.GetSize()}
    return {
        "shape": image.GetSize(),
        "spacing": image.GetSpacing(),
        "origin": image.GetOrigin(),
        "direction": image.GetDirection(),
    }


def assert_on_grids_of_images(folder: Path, final: Path, cases: tuple[str, ...]) -> set[int]:
    """Each case's segmentation in ``final`` lies on the grid of its image; gives the label values that occur."""
    facts = json.loads((folder / "dataset.json").read_text())
    ending = facts["file_ending"]
    values: set[int] = set()
    for case in cases:
        image, segmentation = folder / "imagesTs" / f"{case}_0000{ending}", final / f"{case}{ending}"
        expected = grid_of(image, folder / "imagesTs" / f"{case}.json")
        found = grid_of(segmentation, final / f"{case}.json")
        assert found.keys() == expected.keys() and found["shape"] == expected["shape"], (case, found, expected)
        for quantity in found.keys() - {"shape"}:
            np.testing.assert_allclose(found[quantity], expected[quantity], rtol=0, atol=1e-6, err_msg=case)
        array = (
            tifffile.imread(segmentation) if ending == ".tif" else sitk.GetArrayFromImage(sitk.ReadImage(segmentation))
        )
        values |= {int(value) for value in np.unique(array)}
    return values
