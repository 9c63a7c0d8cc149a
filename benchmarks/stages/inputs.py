"""Real images as raw datasets, the plans both programs read, and what else stages are measured on.

Everything is made by segwright's environment, before anything is measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from benchmarks.pairs import Place
from segwright.core.dataset import Dataset, load_dataset
from segwright.core.plans import Plans
from segwright.core.settings import PlanningSettings
from segwright.inspection.batch import reader_of
from segwright.inspection.dataset import inspect_dataset
from segwright.planning import make_plans
from segwright.preprocessing.label_resize import resize_labels

HIPPOCAMPUS = "hippocampus/Dataset004_Hippocampus"
CT_SOURCE = "ct_torso_variants/Dataset110_TorsoCTvariants"
CT_SHAPES = ((176, 256, 240), (192, 264, 248), (208, 272, 256))
CT_SPACINGS_MM = ((1.04, 0.97, 0.97), (0.95, 1.03, 1.03), (1.0, 1.0, 1.0))
"""So that two of three cases are resampled to the median spacing."""
THICK_SPACINGS_MM = ((4.4, 0.97, 0.97), (3.7, 1.03, 1.03), (4.0, 1.0, 1.0))
_NOISE_HU = 10.0
_SEED = 20240229


@dataclass(frozen=True)
class Prepared:
    """A raw dataset in the peer's folders, with its fingerprint and plans in both programs' places.

    Attributes:
        variables: environment variables of the peer.
        plans_file: of the peer, read by segwright as well.
    """

    dataset: Dataset
    plans: Plans
    fingerprint: Path
    plans_file: Path
    variables: dict[str, str]

    @property
    def number(self) -> str:
        return str(int(self.dataset.name[7:10]))


def peer_variables(work: Path) -> dict[str, str]:
    """The peer's folders below ``work``."""
    names = ("raw", "preprocessed", "results")
    for name in names:
        (work / name).mkdir(parents=True, exist_ok=True)
    return {f"nnUNet_{name}": str(work / name) for name in names} | {"nnUNet_compile": "f"}


def hippocampus(place: Place, cases: int = 40) -> Path | None:
    """The first cases of the Hippocampus dataset, as links; None if the images are missing."""
    source = place.data / HIPPOCAMPUS
    if not source.is_dir():
        return None
    target = place.work / "raw" / source.name
    facts = json.loads((source / "dataset.json").read_text())
    ending = facts["file_ending"]
    names = sorted(path.name.removesuffix(ending) for path in (source / "labelsTr").glob(f"*{ending}"))[:cases]
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    for name in names:
        for file in (f"imagesTr/{name}_0000{ending}", f"labelsTr/{name}{ending}"):
            (target / file).symlink_to((source / file).resolve())
    (target / "dataset.json").write_text(json.dumps({**facts, "numTraining": len(names)}))
    return target


def large_cts(place: Place, spacings: tuple[tuple[float, float, float], ...] = CT_SPACINGS_MM) -> Path | None:
    """Three CTs of 11 to 14 million voxels: small real ones upsampled, with noise; None if the images are missing.

    Upsampling leaves a smoother image than a scanner makes; Gaussian noise inside the body gives back what compresses
    badly and has many different values.
    """
    source = place.data / CT_SOURCE
    if not source.is_dir():
        return None
    target = place.work / "raw" / "Dataset110_LargeCT"
    facts = json.loads((source / "dataset.json").read_text())
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    images = sorted((source / "imagesTr").glob("*.nii.gz"))[: len(CT_SHAPES)]
    for path, shape, spacing in zip(images, CT_SHAPES, spacings, strict=True):
        case = path.name.removesuffix("_0000.nii.gz")
        write_nifti(target / "imagesTr" / path.name, upsampled_ct(path, shape), spacing)
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(source / "labelsTr" / f"{case}.nii.gz")))
        write_nifti(target / "labelsTr" / f"{case}.nii.gz", resize_labels(label, shape, 1, "argmax"), spacing)
    (target / "dataset.json").write_text(json.dumps({**facts, "numTraining": len(images)}))
    return target


def upsampled_ct(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """int16 of the given shape."""
    small = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
    factors = [new / old for new, old in zip(shape, small.shape, strict=True)]
    large = ndimage.zoom(small, factors, order=3, mode="nearest", grid_mode=True)
    noise = _NOISE_HU * np.random.default_rng(_SEED).standard_normal(shape, np.float32)
    noisy = np.where(large > small.min() + 1, large + noise, large)
    return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)


def write_nifti(path: Path, array_zyx: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(image, str(path), useCompression=True)


def prepare(place: Place, folder: Path, settings: PlanningSettings | None = None, **entry: Any) -> Prepared:
    """Inspect and plan a raw dataset below ``place.work/raw`` and put what the peer needs into its folders.

    Args:
        entry: what to change in the plans' 3d_fullres, such as the patch size.
    """
    inspected = inspect_dataset(folder, place.work / "inspected" / folder.name, batches=1)
    dataset = load_dataset(folder)
    facts = json.loads((folder / "dataset.json").read_text())
    fingerprint = json.loads(inspected.read_text())
    plans, _ = make_plans(fingerprint, facts, settings or PlanningSettings(), folder.name, reader_of(dataset))
    written = json.loads(json.dumps(plans.to_json()))
    written["configurations"]["3d_fullres"].update(entry)
    variables = peer_variables(place.work)
    preprocessed = place.work / "preprocessed" / folder.name
    (preprocessed / "gt_segmentations").mkdir(parents=True)
    for case in dataset.training:
        assert case.label_file is not None
        (preprocessed / "gt_segmentations" / case.label_file.name).symlink_to(case.label_file.resolve())
    (preprocessed / "dataset.json").write_text(json.dumps(facts))
    (preprocessed / "dataset_fingerprint.json").write_text(inspected.read_text())
    plans_file = preprocessed / "nnUNetPlans.json"
    plans_file.write_text(json.dumps(written))
    return Prepared(dataset, Plans.from_json(written), inspected, plans_file, variables)


def segwright_command(place: Place, *words: str | Path) -> tuple[str | Path, ...]:
    return (place.own.with_name("segwright"), *words)


def peer_command(place: Place, name: str, *words: str | Path) -> tuple[str | Path, ...]:
    return (place.peer.with_name(f"nnUNetv2_{name}"), *words)
