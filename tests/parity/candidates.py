"""Out-of-fold predictions of some configurations by formulas, and what segwright selects among them (method 11.4).

Shared by the recording and comparison (benchmarks/peer), which give nnU-Net v2 the same predictions, and by the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.architecture import Architecture
from segwright.core.dataset import Dataset
from segwright.core.files import file_digest
from segwright.core.labels import Labels
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.evaluation.summary import summarize_crossval
from segwright.images.image import LabelMap
from segwright.images.readers import read_label, write_label
from segwright.inference.export import decide
from segwright.inference.finished import write_manifest
from segwright.inference.probabilities import write_probabilities
from segwright.preprocessing.case import CaseProperties
from segwright.selection.best import ensemble_pairs, select_best
from segwright.selection.ensembles import evaluate_ensemble
from segwright.selection.postprocessing import determine_postprocessing
from segwright.training.augmentation.label_channels import one_hot, region_channels

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
FOLDS = (0, 1)
NOISE: dict[str, tuple[float, float, float]] = {
    "a pair": (1.5, 1.4, 1.6),
    "one alone": (2.2, 1.04, 2.3),
    "equal ones": (1.4, 1.4, 1.4),
}
"""What wins -> how much noise each configuration has; equal noise is the same noise."""


@dataclass(frozen=True)
class Prediction:
    """Of one case by one configuration, which was not trained on it.

    Attributes:
        probabilities_czyx: float32 (outputs, z, y, x) on the grid of the reference.
    """

    configuration: str
    fold: int
    case_id: str
    reference: LabelMap
    probabilities_czyx: np.ndarray
    label_zyx: np.ndarray


def predictions(dataset: Dataset, reader: str, noise: Sequence[float]) -> Iterator[Prediction]:
    """Of every case by every configuration, in this order."""
    for configuration, amount in zip(CONFIGURATIONS, noise, strict=True):
        for number, case in enumerate(dataset.training):
            assert case.label_file is not None
            reference = read_label(case.label_file, reader)
            probabilities = noisy(reference.array_zyx, dataset.labels, amount, number)
            label = decide(probabilities, dataset.labels)
            yield Prediction(configuration, FOLDS[number % 2], case.case_id, reference, probabilities, label)


def noisy(reference_zyx: np.ndarray, labels: Labels, noise: float, seed: int) -> np.ndarray:
    """Probabilities in multiples of 1/256: sums of them are exact, so that no machine decides otherwise."""
    if labels.has_regions:
        truth = region_channels(reference_zyx, labels.foreground_regions).astype(np.float64)
    else:
        truth = one_hot(reference_zyx, labels.all_labels).astype(np.float64)
    likely = truth + noise * np.random.default_rng([seed, round(100 * noise)]).random(truth.shape)
    shares = likely / (1 + noise if labels.has_regions else likely.sum(axis=0))
    return (np.floor(shares * 256) / 256).astype(np.float32)


def selected(dataset: Dataset, reader: str, noise: Sequence[float], folder: Path) -> dict[str, Any]:
    """Scores of all candidates; members, rules and postprocessed score of the best; by the workflow's functions."""
    written: dict[tuple[str, int], list[Prediction]] = {}
    for prediction in predictions(dataset, reader, noise):
        written.setdefault((prediction.configuration, prediction.fold), []).append(prediction)
    label_maps: dict[str, list[Path]] = {}
    probabilities: dict[str, list[Path]] = {}
    for (configuration, fold), cases in written.items():
        place = folder / configuration / f"fold_{fold}"
        label_maps.setdefault(configuration, []).append(_write_label_maps(cases, dataset, reader, place))
        probabilities.setdefault(configuration, []).append(_write_probabilities(cases, dataset, reader, place))
    candidates = {name: folder / name / "crossval" / "summary.json" for name in CONFIGURATIONS}
    for name, summary in candidates.items():
        summarize_crossval(label_maps[name], dataset, reader, summary)
    for pair in ensemble_pairs(CONFIGURATIONS):
        output = folder / "+".join(pair)
        evaluate_ensemble([probabilities[name] for name in pair], dataset, reader, output)
        candidates["+".join(pair)] = output / "summary.json"
        label_maps["+".join(pair)] = [output / "labels.json"]
    best = select_best(candidates, CONFIGURATIONS, folder / "selection.json", folds=FOLDS, planned_folds=len(FOLDS))
    found = determine_postprocessing(label_maps[best.best], dataset, reader, "full", folder / "postprocessing.json")
    return {
        "scores": dict(best.scores),
        "members": list(best.members),
        "rules": [sorted(rule.values) for rule in found.rules],
        "score_after": float(found.after["foreground_mean"]["Dice"]),
    }


def _write_label_maps(cases: Sequence[Prediction], dataset: Dataset, reader: str, folder: Path) -> Path:
    files: dict[str, dict[str, Any]] = {}
    for case in cases:
        path = folder / "validation" / f"{case.case_id}{dataset.file_ending}"
        write_label(path, case.label_zyx, case.reference.geometry, reader)
        files[case.case_id] = {"file": path, "digest": file_digest(path)}
    write_manifest(folder / "validation.json", folder, files)
    return folder / "validation.json"


def _write_probabilities(cases: Sequence[Prediction], dataset: Dataset, reader: str, folder: Path) -> Path:
    """On the raw grid: nothing was cropped, transposed or resampled."""
    files: dict[str, dict[str, Any]] = {}
    for case in cases:
        path = folder / "probabilities" / f"{case.case_id}.probabilities"
        geometry = case.reference.geometry
        shape, spacing = geometry.shape_zyx, geometry.spacing_zyx
        z, y, x = shape
        properties = CaseProperties(geometry, shape, ((0, z), (0, y), (0, x)), shape, shape, spacing, spacing)
        plan = _plan(case.configuration, dataset, reader)
        write_probabilities(path, case.probabilities_czyx, properties, plan, "probabilities")
        files[case.case_id] = {"file": path, "digest": file_digest(path)}
    write_manifest(folder / "probabilities.json", folder, files)
    return folder / "probabilities.json"


def _plan(configuration: str, dataset: Dataset, reader: str) -> PredictPlan:
    """Labels, reader and order of axes; the rest is of no importance here."""
    architecture = Architecture("plain_unet", (4, 8), ((3,) * 3,) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
    preprocess = PreprocessPlan(
        data_name=configuration, channel_names=("MRI",), labels=dataset.labels, reader=reader,
        transpose_forward=(0, 1, 2), transpose_backward=(0, 1, 2), spacing_mm=(1.0, 1.0, 1.0),
        normalization_schemes=("ZScoreNormalization",), use_mask_for_norm=(False,), intensities=(None,),
    )  # fmt: skip
    return PredictPlan(configuration, preprocess, (8, 8, 8), architecture)
