"""From network scores on the stored grid back to the raw image's grid: label maps and probabilities (method 10.4).

Scores are resampled to the cropped image, decided, pasted at the crop's place and transposed back. Label maps are made
"label first" (see ``interpolation.py``): all classes are never held at full size. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from segwright.core.labels import Labels
from segwright.core.slices import PredictPlan
from segwright.inference.interpolation import (
    Axis,
    region_labels,
    resampling_axes,
    winning_labels,
)
from segwright.preprocessing.case import CaseProperties, undo_crop_and_transpose

ScoreKind = Literal["logits", "probabilities"]
"""What a score array holds: logits (nnU-Net v2), or probabilities where those are averaged (v1)."""


def labels_from_logits(
    scores_czyx: np.ndarray, properties: CaseProperties, plan: PredictPlan, kind: ScoreKind = "logits"
) -> np.ndarray:
    """Label map on the raw grid, uint8 or, where a label or a region's value is 255 or more, uint16.

    Args:
        scores_czyx: (outputs, z, y, x) float32 on the stored (preprocessed) grid of ``properties``.
    """
    label_zyx = _decide_resampled(scores_czyx, crop_axes(properties, plan), plan.labels, kind)
    return undo_crop_and_transpose(label_zyx, properties, plan.preprocess, 0)


def next_stage_labels(
    scores_czyx: np.ndarray,
    properties: CaseProperties,
    plan: PredictPlan,
    shape_zyx: Sequence[int],
    kind: ScoreKind = "logits",
) -> np.ndarray:
    """Label map on the next stage's stored grid of ``shape_zyx``, made from the scores (method 9.7).

    As in v2, current and target spacing of this resampling are both this configuration's, which decides about slices.
    """
    spacing = properties.spacing_mm
    axes = resampling_axes(scores_czyx.shape[1:], shape_zyx, spacing, spacing, plan.resampling_logits)
    return _decide_resampled(scores_czyx, axes, plan.labels, kind)


def labels_from_probability_slabs(
    slabs: Iterable[np.ndarray], properties: CaseProperties, plan: PredictPlan
) -> np.ndarray:
    """Label map on the raw grid from (averaged) probabilities on the cropped, transposed grid.

    Only ``plan.labels`` and the transposition matter, which all configurations of a dataset share.

    Args:
        slabs: float32 (outputs, planes, y, x), consecutive z ranges, so that not all classes need be held at full size.
    """
    label_zyx = np.concatenate([decide(slab, plan.labels) for slab in slabs])
    return undo_crop_and_transpose(label_zyx, properties, plan.preprocess, 0)


def decide(probabilities_czyx: np.ndarray, labels: Labels) -> np.ndarray:
    """Probabilities to labels: the first highest class, or every region above one half in order (method 10.4)."""
    if not labels.has_regions:
        best = probabilities_czyx[0].copy()
        result = np.zeros(best.shape, labels.label_map_dtype)
        for value in range(1, len(probabilities_czyx)):
            np.copyto(result, value, where=probabilities_czyx[value] > best)
            np.maximum(best, probabilities_czyx[value], out=best)
        return result
    result = np.zeros(probabilities_czyx.shape[1:], labels.label_map_dtype)
    for region, value in enumerate(labels.regions_class_order or ()):
        result[probabilities_czyx[region] > 0.5] = value
    return result


def to_probabilities(logits_czyx: np.ndarray, labels: Labels) -> np.ndarray:
    """Softmax over the classes, or a sigmoid of each region; float32."""
    if labels.has_regions:
        # exp of a negative number only: no overflow, and both branches are exact
        small = np.exp(-np.abs(logits_czyx))
        return np.where(logits_czyx >= 0, 1 / (1 + small), small / (1 + small))
    powers = logits_czyx - logits_czyx.max(axis=0)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=0)
    return powers


def crop_axes(properties: CaseProperties, plan: PredictPlan) -> tuple[Axis, Axis, Axis]:
    """The resampling from the stored grid back to the cropped image."""
    return resampling_axes(
        properties.shape,
        properties.shape_after_cropping,
        properties.spacing_mm,
        properties.spacing_before_mm,
        plan.resampling_logits,
    )


def _decide_resampled(
    scores_czyx: np.ndarray, axes: tuple[Axis, Axis, Axis], labels: Labels, kind: ScoreKind
) -> np.ndarray:
    expected = (labels.num_outputs, *(axis.n_in for axis in axes))
    if scores_czyx.shape != expected:
        raise ValueError(f"scores of shape {scores_czyx.shape}, the plan and the case need {expected}")
    scores_czyx = np.ascontiguousarray(scores_czyx, np.float32)
    if not labels.has_regions:
        return winning_labels(scores_czyx, axes, labels.label_map_dtype)
    threshold = 0.0 if kind == "logits" else 0.5
    order = labels.regions_class_order or ()
    return region_labels(scores_czyx, axes, order, threshold, labels.label_map_dtype)
