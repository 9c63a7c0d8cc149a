"""The worst cases of each structure as pictures: the slice where reference and prediction differ most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.core.dataset import Dataset, LabelKey, key_values
from segwright.evaluation.summary import CaseResult, Summary
from segwright.images.readers import read_image, read_label
from segwright.reporting.figures import overlay_plot

WORST = 3


@dataclass(frozen=True)
class Overlay:
    """One picture and what it shows."""

    key: LabelKey
    case_id: str
    dice: float
    slice_index: int
    png: bytes


def worst_overlays(summary: Summary, summary_file: Path, dataset: Dataset, reader: str) -> Iterator[Overlay]:
    """Pictures of the three cases with the lowest Dice of every structure, worst first.

    Cases in which a structure neither occurs nor is predicted have no Dice and are left out.
    """
    for key in summary.keys:
        scored = [case for case in summary.cases if not np.isnan(case.counts[key].dice)]
        for case in sorted(scored, key=lambda case: (case.counts[key].dice, case.case_id))[:WORST]:
            yield _overlay(case, key, summary_file, dataset, reader)


def _overlay(case: CaseResult, key: LabelKey, summary_file: Path, dataset: Dataset, reader: str) -> Overlay:
    raw = dataset.training_case(case.case_id)
    image = read_image(raw.image_files, reader)
    reference_zyx = read_label(dataset.folder / case.reference_name, reader).array_zyx
    prediction_zyx = read_label(summary_file.parent / case.prediction_name, reader).array_zyx
    reference = np.isin(reference_zyx, key_values(key))
    prediction = np.isin(prediction_zyx, key_values(key))
    # Slices are cut across the axis of coarsest resolution, in which people look at images.
    axis = int(np.argmax(image.geometry.spacing_zyx))
    others = tuple(other for other in range(3) if other != axis)
    wrong = (reference != prediction).sum(axis=others)
    shown = wrong if wrong.any() else reference.sum(axis=others)
    index = int(np.argmax(shown))
    rows_mm, columns_mm = (image.geometry.spacing_zyx[other] for other in others)
    png = overlay_plot(
        np.take(image.array_czyx[0], index, axis=axis),
        np.take(reference, index, axis=axis),
        np.take(prediction, index, axis=axis),
        aspect=rows_mm / columns_mm,
    )
    return Overlay(key, case.case_id, case.counts[key].dice, index, png)
