"""A whole case against a plain re-implementation, the way back, and v1's order of steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.core.labels import Labels
from segwright.core.slices import PreprocessPlan
from segwright.images.image import Image, LabelMap
from segwright.preprocessing.case import CaseProperties, preprocess_case, undo_crop_and_transpose
from segwright.preprocessing.locations import sample_locations

from . import reference
from .conftest import blobs

MakePlan = Callable[..., PreprocessPlan]


def raw_case(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], channels: int = 1
) -> tuple[Image, LabelMap]:
    """Zero outside a box, with a zero hole inside, and foreground reaching out of the box."""
    label = blobs(shape, 3, 1)
    noise = np.random.default_rng(0).normal(100, 20, (channels, *shape))
    image = (noise + 50 * label).astype(np.float32)
    image[:, :2], image[:, :, -3:], image[:, 5, 5, 5:7] = 0, 0, 0
    image[:, :, :, :1], image[:, :6, :6] = 0, 0
    geometry = Geometry(shape, spacing, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    return Image(image, geometry, "float32"), LabelMap(label, geometry, "uint8")


@pytest.mark.parametrize(
    ("spacing", "changes"),
    [
        ((1.0, 1.0, 1.0), {}),
        ((1.3, 0.8, 0.9), {}),
        ((5.0, 1.0, 1.0), {"spacing_mm": (3.0, 0.7, 0.7)}),
        ((1.0, 6.0, 0.9), {"transpose_forward": (1, 0, 2), "transpose_backward": (1, 0, 2), "spacing_mm": (6.0, 1, 1)}),
        ((0.9, 0.8, 2.0), {"transpose_forward": (2, 0, 1), "transpose_backward": (1, 2, 0)}),
        ((3.0, 1.2, 1.1), {"spacing_mm": (1.0, 0.9)}),
        ((1.3, 0.8, 0.9), {"use_mask_for_norm": (True, True)}),
    ],
)
def test_arrays_equal_the_reference(make_plan: MakePlan, spacing: tuple, changes: dict) -> None:
    plan = make_plan(("ZScoreNormalization", "CTNormalization"), **{"use_mask_for_norm": (False, False), **changes})
    image, label = raw_case((14, 17, 12), spacing, channels=2)
    before = image.array_czyx.copy()
    case = preprocess_case(image, label, plan)
    expected_image, expected_label = reference.preprocess(image.array_czyx, label.array_zyx, spacing, plan)
    assert case.image_czyx.dtype == np.float32
    assert case.image_czyx.shape == expected_image.shape
    assert np.abs(case.image_czyx - expected_image).max() < 1e-5
    assert case.label_zyx is not None
    assert case.label_zyx.dtype == np.int8
    assert np.array_equal(case.label_zyx, expected_label)
    assert case.class_locations is not None
    for key, located in sample_locations(expected_label, plan.labels).items():
        assert np.array_equal(case.class_locations[key], located)
    assert np.array_equal(image.array_czyx, before), "the caller's image must stay as it was"


def test_properties_tell_where_the_case_came_from(make_plan: MakePlan) -> None:
    plan = make_plan(transpose_forward=(2, 0, 1), transpose_backward=(1, 2, 0), spacing_mm=(2.0, 1.0, 1.0))
    image, label = raw_case((14, 17, 12), (1.5, 1.0, 2.0))
    properties = preprocess_case(image, label, plan).properties
    assert properties.shape_before_cropping == (12, 14, 17)
    assert properties.bbox == ((1, 12), (2, 14), (0, 14))
    assert properties.shape_after_cropping == (11, 12, 14)
    assert properties.spacing_before_mm == (2.0, 1.5, 1.0)
    assert properties.shape == (11, 18, 14)
    assert properties.spacing_mm == (2.0, 1.0, 1.0)
    assert CaseProperties.from_json(properties.to_json()) == properties


def test_two_dimensional_plans_keep_the_slices(make_plan: MakePlan) -> None:
    image, label = raw_case((14, 17, 12), (3.0, 1.2, 1.1))
    properties = preprocess_case(image, label, make_plan(spacing_mm=(1.0, 0.9))).properties
    assert properties.spacing_mm == (3.0, 1.0, 0.9)
    assert properties.shape == (12, 17, 13)


def test_without_label_map_the_image_is_the_same(make_plan: MakePlan) -> None:
    plan = make_plan(use_mask_for_norm=(True,))
    image, label = raw_case((14, 17, 12), (1.3, 1.0, 0.9))
    background = LabelMap(np.zeros_like(label.array_zyx), label.geometry, "uint8")
    unlabelled = preprocess_case(image, None, plan)
    assert unlabelled.label_zyx is None
    assert unlabelled.class_locations is None
    assert unlabelled.annotated_labels == ()
    assert np.array_equal(unlabelled.image_czyx, preprocess_case(image, background, plan).image_czyx)


def test_undo_brings_every_voxel_of_the_crop_home(make_plan: MakePlan) -> None:
    plan = make_plan(transpose_forward=(2, 0, 1), transpose_backward=(1, 2, 0), spacing_mm=(2.0, 1.5, 1.0))
    image, label = raw_case((14, 17, 12), (1.5, 1.0, 2.0))
    case = preprocess_case(image, label, plan)
    home = undo_crop_and_transpose(case.label_zyx, case.properties, plan, 9)
    cropped = home != 9
    assert home.shape == (14, 17, 12)
    assert np.array_equal(np.argwhere(cropped).min(axis=0), [2, 0, 1])
    assert np.array_equal(np.argwhere(cropped).max(axis=0), [13, 13, 11])
    inside = cropped & (home >= 0)
    assert np.array_equal(home[inside], label.array_zyx[inside])


def test_undo_fills_channels_with_their_own_value(make_plan: MakePlan) -> None:
    plan = make_plan()
    image, label = raw_case((14, 17, 12), (1.0, 1.0, 1.0))
    properties = preprocess_case(image, label, plan).properties
    scores = np.full((2, *properties.shape_after_cropping), 0.5, np.float32)
    home = undo_crop_and_transpose(scores, properties, plan, (1, 0))
    assert home.shape == (2, 14, 17, 12)
    assert home.dtype == np.float32
    assert home[:, 0, 0, 0].tolist() == [1.0, 0.0]
    assert home[:, 5, 5, 5].tolist() == [0.5, 0.5]


def test_resample_first_normalises_the_resampled_image(make_plan: MakePlan) -> None:
    plan = make_plan(order_of_steps="resample_first", use_mask_for_norm=(True,), label_resize="threshold")
    image, label = raw_case((14, 17, 12), (1.3, 1.0, 0.8))
    case = preprocess_case(image, label, plan)
    assert case.label_zyx is not None
    inside = case.label_zyx >= 0
    assert inside.any()
    assert not inside.all()
    assert np.all(case.image_czyx[0][~inside] == 0)
    assert abs(case.image_czyx[0][inside].mean(dtype=float)) < 1e-6
    assert case.image_czyx[0][inside].std(dtype=float) == pytest.approx(1, abs=1e-6)
    raw, _ = reference.preprocess(image.array_czyx, label.array_zyx, (1.3, 1.0, 0.8), make_plan(("NoNormalization",)))
    values = raw[0][inside].astype(float)
    assert np.abs(case.image_czyx[0][inside] - (values - values.mean()) / values.std()).max() < 1e-5


def test_labels_above_127_are_stored_in_16_bits(make_plan: MakePlan) -> None:
    names = {"background": 0, **{f"l{value}": value for value in range(1, 200)}}
    plan = make_plan(labels=Labels.from_json({"labels": names}))
    image, label = raw_case((14, 17, 12), (1.0, 1.0, 1.0))
    large = LabelMap(np.where(label.array_zyx == 2, 199, label.array_zyx).astype(np.uint8), label.geometry, "uint8")
    case = preprocess_case(image, large, plan)
    assert case.label_zyx is not None
    assert case.label_zyx.dtype == np.int16
    assert case.label_zyx.max() == 199
    assert case.label_zyx.min() == -1
    assert case.annotated_labels == tuple(range(200))


def test_missing_sequences_are_recorded(make_plan: MakePlan) -> None:
    image, label = raw_case((14, 17, 12), (1.0, 1.0, 1.0), channels=2)
    image.array_czyx[1] = 0
    case = preprocess_case(image, label, make_plan(("ZScoreNormalization",) * 2))
    assert case.present_channels == (True, False)
    assert np.all(case.image_czyx[1] == 0)


def test_all_zero_image_keeps_its_full_extent(make_plan: MakePlan) -> None:
    image, label = raw_case((6, 7, 8), (1.0, 1.0, 1.0))
    image.array_czyx[:] = 0
    case = preprocess_case(image, label, make_plan(use_mask_for_norm=(True,)))
    assert case.properties.shape == (6, 7, 8)
    assert np.all(case.image_czyx == 0)


def test_what_does_not_fit_is_named(make_plan: MakePlan) -> None:
    image, label = raw_case((6, 7, 8), (1.0, 1.0, 1.0))
    with pytest.raises(DatasetError, match="1 channels but the plans were made for 2"):
        preprocess_case(image, label, make_plan(("ZScoreNormalization",) * 2))
    small = LabelMap(label.array_zyx[1:], label.geometry, "uint8")
    with pytest.raises(DatasetError, match=r"\(5, 7, 8\)"):
        preprocess_case(image, small, make_plan())
