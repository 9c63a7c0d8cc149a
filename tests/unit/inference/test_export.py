"""From scores to label maps on the raw grid (method 10.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from segwright.core.slices import PredictPlan
from segwright.inference.export import (
    crop_axes,
    decide,
    labels_from_logits,
    labels_from_probability_slabs,
    next_stage_labels,
    to_probabilities,
)
from segwright.inference.interpolation import interpolate_slabs
from segwright.preprocessing.case import CaseProperties

from .conftest import PLAIN, REGIONS, geometry, predict_plan, properties_of

BOX = ((1, 11), (2, 9), (0, 10))


def case(labels: dict[str, Any], **changes: Any) -> tuple[PredictPlan, CaseProperties, np.ndarray]:
    """A transposed, cropped, resampled case with smooth random logits."""
    plan = predict_plan(labels, transpose_forward=(2, 0, 1), transpose_backward=(1, 2, 0), **changes)
    properties = properties_of(plan.preprocess, geometry((10, 12, 11)), BOX)
    assert properties.shape != properties.shape_after_cropping == (10, 7, 10)
    noise = np.random.default_rng(0).normal(size=(plan.labels.num_outputs, *properties.shape))
    return plan, properties, (3 * ndimage.gaussian_filter(noise, (0, 1, 1, 1))).astype(np.float32)


def resampled(scores: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    factors = np.array(shape) / scores.shape[1:]
    return np.stack([ndimage.zoom(c.astype(float), factors, order=1, mode="nearest", grid_mode=True) for c in scores])


def probabilities_at_once(scores: np.ndarray, properties: CaseProperties, plan: PredictPlan) -> np.ndarray:
    """All classes at full size, on the cropped, transposed grid."""
    axes = crop_axes(properties, plan)
    return to_probabilities(interpolate_slabs(scores, axes, 0, axes[0].n_out), plan.labels)


def test_crop_and_transposition_are_undone() -> None:
    plan, properties, scores = case(PLAIN)
    label = labels_from_logits(scores, properties, plan)
    full = resampled(scores, (10, 7, 10)).argmax(axis=0)
    expected = np.zeros((11, 10, 12), np.uint8)  # transposed by (2, 0, 1), before cropping
    expected[1:11, 2:9, 0:10] = full
    assert label.shape == (10, 12, 11) and label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected.transpose(1, 2, 0))


def test_regions_are_written_in_order_and_later_ones_win() -> None:
    plan, properties, scores = case(REGIONS)
    label = labels_from_logits(scores, properties, plan)
    full = resampled(scores, (10, 7, 10))
    expected = np.where(full[1] > 0, 2, np.where(full[0] > 0, 1, 0))
    inside = label.transpose(2, 0, 1)[1:11, 2:9, 0:10]
    np.testing.assert_array_equal(inside, expected)
    assert set(np.unique(label)) == {0, 1, 2}


def test_regions_may_write_any_value() -> None:
    regions = {"labels": {"background": 0, "whole": [2, 300], "core": [300]}, "regions_class_order": [2, 300]}
    plan, properties, scores = case(regions)
    label = labels_from_logits(scores, properties, plan)
    full = resampled(scores, (10, 7, 10))
    expected = np.where(full[1] > 0, 300, np.where(full[0] > 0, 2, 0))
    np.testing.assert_array_equal(label.transpose(2, 0, 1)[1:11, 2:9, 0:10], expected)
    assert label.dtype == np.uint16 and set(np.unique(label)) == {0, 2, 300}
    np.testing.assert_array_equal(decide(to_probabilities(full, plan.labels), plan.labels), expected)


@pytest.mark.parametrize("labels", [PLAIN, REGIONS])
def test_averaged_probabilities_are_thresholded_at_one_half(labels: dict[str, Any]) -> None:
    plan, properties, scores = case(labels)
    probabilities = to_probabilities(scores, plan.labels)
    label = labels_from_logits(probabilities, properties, plan, "probabilities")
    full = resampled(probabilities, (10, 7, 10))
    inside = label.transpose(2, 0, 1)[1:11, 2:9, 0:10]
    np.testing.assert_array_equal(inside, decide(full.astype(np.float32), plan.labels))


@pytest.mark.parametrize("labels", [PLAIN, REGIONS])
def test_probabilities_and_logits_give_the_same_labels(labels: dict[str, Any]) -> None:
    plan, properties, scores = case(labels)
    probabilities = probabilities_at_once(scores, properties, plan)
    assert probabilities.shape == (plan.labels.num_outputs, 10, 7, 10) and probabilities.dtype == np.float32
    full = resampled(scores, (10, 7, 10))
    if labels is PLAIN:
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)
        expected = np.exp(full) / np.exp(full).sum(axis=0)
    else:
        expected = 1 / (1 + np.exp(-full))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    from_probabilities = labels_from_probability_slabs([probabilities], properties, plan)
    np.testing.assert_array_equal(from_probabilities, labels_from_logits(scores, properties, plan))


def test_next_stage_map_lies_on_the_given_grid() -> None:
    plan, properties, scores = case(PLAIN)
    label = next_stage_labels(scores, properties, plan, (20, 9, 31))
    np.testing.assert_array_equal(label, resampled(scores, (20, 9, 31)).argmax(axis=0))


def test_many_labels_take_uint16() -> None:
    many = {"labels": {"background": 0, **{f"l{value}": value for value in range(1, 260)}}}
    plan = predict_plan(many)
    properties = properties_of(plan.preprocess, geometry((2, 3, 2), (1, 1, 1)))
    scores = np.zeros((260, 2, 3, 2), np.float32)
    scores[258] = 1
    label = labels_from_logits(scores, properties, plan)
    assert label.dtype == np.uint16 and (label == 258).all()


def test_254_foreground_labels_still_fit_uint8() -> None:
    many = {"labels": {"background": 0, **{f"l{value}": value for value in range(1, 255)}}}
    plan = predict_plan(many)
    properties = properties_of(plan.preprocess, geometry((4, 3, 2), (1, 1, 2)))
    scores = np.zeros((255, *properties.shape), np.float32)
    scores[254, :2], scores[7, 2:] = 1, 1
    label = labels_from_logits(scores, properties, plan)
    assert label.dtype == np.uint8 and label[:2].min() == 254 and label[2:].max() == 7


def test_extreme_logits_give_finite_probabilities() -> None:
    logits = np.array([[[[-1e4, 0, 1e4]]], [[[1e4, 0, -1e4]]]], np.float32)
    regions = to_probabilities(logits, predict_plan(REGIONS).labels)
    np.testing.assert_array_equal(regions[0, 0, 0], [0, 0.5, 1])
    plain = to_probabilities(np.concatenate([logits, logits[:1]]), predict_plan(PLAIN).labels)
    np.testing.assert_allclose(plain[:, 0, 0, 0], [0, 1, 0])


def test_scores_of_another_case_are_refused() -> None:
    plan, properties, scores = case(PLAIN)
    with pytest.raises(ValueError, match="need"):
        labels_from_logits(scores[:, 1:], properties, plan)
    with pytest.raises(ValueError, match="need"):
        labels_from_logits(scores[:2], replace(properties), plan)
