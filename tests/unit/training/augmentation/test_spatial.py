from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.training.augmentation.golden import golden, within_standard_errors

from segwright.training.augmentation.spatial import ArrayWindow, RandomSpatial, Spatial, read_padded

CASES = ("turned", "zoomed_out", "zoomed_in", "in_plane", "2d", "copy")


@pytest.mark.parametrize("case", CASES)
def test_twin_equals_batchgeneratorsv2(case: str) -> None:
    stored = {
        part: golden(f"spatial_{case}.{part}")
        for part in ("image", "label", "image_out", "label_out", "angles", "scale", "in_plane")
    }
    twin = Spatial(
        stored["image_out"].shape[1:], tuple(stored["angles"]), float(stored["scale"]), bool(stored["in_plane"])
    )
    image, labels = twin(stored["image"], stored["label"])
    np.testing.assert_allclose(image, stored["image_out"], atol=5e-6)
    np.testing.assert_array_equal(labels, stored["label_out"])
    assert image.dtype == np.float32 and labels.dtype == stored["label"].dtype


def test_scale_above_one_zooms_out() -> None:
    image = np.zeros((1, 41, 41), np.float32)
    image[0, 10:31, 10:31] = 1
    labels = image.astype(np.int16)
    small, small_labels = Spatial((21, 21), (), 1.4)(image, labels)
    large, _ = Spatial((21, 21), (), 0.7)(image, labels)
    assert large.sum() == 21 * 21
    assert small.sum() == pytest.approx((21 / 1.4) ** 2, rel=0.02)
    assert small_labels.sum() == pytest.approx((21 / 1.4) ** 2, rel=0.05)


def test_outside_the_window_is_zero_and_minus_one() -> None:
    image, labels = Spatial((9, 9, 9), (0.5, 0.5, 0.5), 1.4)(
        np.ones((2, 9, 9, 9), np.float32), np.ones((1, 9, 9, 9), np.int8)
    )
    assert image[0, 0, 0, 0] == 0 and labels[0, 0, 0, 0] == -1
    assert image[1, 4, 4, 4] == pytest.approx(1) and labels[0, 4, 4, 4] == 1
    assert set(np.unique(labels)) == {-1, 1}


@settings(max_examples=25, deadline=None)
@given(
    window=st.tuples(*[st.integers(6, 14)] * 3),
    angles=st.tuples(*[st.floats(0.02, 0.52)] * 3),  # else points lie halfway: those go by the index of what was read
    scale=st.floats(0.7, 1.4),
    seed=st.integers(0, 99),
)
def test_reading_only_what_is_needed_changes_nothing(
    window: tuple[int, int, int], angles: tuple[float, float, float], scale: float, seed: int
) -> None:
    """The same as interpolating the whole window, everything around it zero and -1."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((1, *window)).astype(np.float32)
    labels = rng.integers(-1, 3, (1, *window), np.int8)
    twin = Spatial((6, 5, 6), angles, scale)
    got_image, got_labels = twin(image, labels)
    margin = 20
    around = [(0, 0)] + [(margin, margin)] * 3
    padded = ArrayWindow(np.pad(image, around), np.pad(labels, around, constant_values=-1))
    wide_image, wide_labels = twin.sample(padded)
    np.testing.assert_allclose(got_image, wide_image, atol=1e-5)
    assert (got_labels != wide_labels).sum() <= 1  # scores at a rounding boundary


def test_many_labels_give_the_strongest_one_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 40, (1, 12, 13, 11), np.int8)
    twin = Spatial((6, 6, 6), (0.2, -0.1, 0.3), 0.9)
    _, got = twin(np.zeros((1, 12, 13, 11), np.float32), labels)
    indicators = np.array([labels[0] == value for value in range(40)], np.float32)
    scores, _ = twin(indicators, labels)
    best = scores.max(axis=0)
    chosen = np.take_along_axis(scores, got.astype(np.intp), axis=0)[0]
    assert (best - chosen).max() < 1e-3  # half precision decides near ties


def test_label_at_the_top_of_its_type_is_kept() -> None:
    labels = np.full((1, 8, 8), 127, np.int8)
    labels[0, :4] = 3
    _, got = Spatial((6, 6), (0.3,), 1.0)(np.zeros((1, 8, 8), np.float32), labels)
    assert set(np.unique(got)) == {3, 127} and got.dtype == np.int8


def test_draws_have_v2s_rates_and_ranges() -> None:
    drawing = RandomSpatial((8, 8, 8), rotation_rad=0.5)
    rng = np.random.default_rng(0)
    twins = [drawing.draw(rng) for _ in range(4000)]
    turned = np.array([bool(twin.angles_rad) for twin in twins], float)
    zoomed = np.array([twin.scale != 1 for twin in twins], float)
    assert within_standard_errors(turned, 0.2, 0.4) and within_standard_errors(zoomed, 0.2, 0.4)
    assert within_standard_errors(turned * zoomed, 0.04, 0.196)  # independent
    angles = np.array([twin.angles_rad for twin in twins if twin.angles_rad])
    assert angles.shape[1] == 3 and within_standard_errors(angles.ravel(), 0, 1 / np.sqrt(12))
    assert abs(np.corrcoef(angles.T)[0, 1]) < 0.15
    scales = np.array([twin.scale for twin in twins if twin.scale != 1])
    assert within_standard_errors(scales, 1.05, 0.7 / np.sqrt(12)) and scales.min() >= 0.7 and scales.max() <= 1.4
    flat = RandomSpatial((3, 8, 8), rotation_rad=3.1, in_plane=True, rotation_probability=1.0)
    assert len(flat.draw(rng).angles_rad) == 1


def test_read_padded_fills_what_lies_outside() -> None:
    array = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    got = read_padded(array, (-1, 2), (2, 6), -1, np.int8)
    assert got.tolist() == [[[-1, -1, -1, -1], [2, 3, -1, -1], [6, 7, -1, -1]]]
    assert (read_padded(array, (5, 9), (7, 10), 0, np.float32) == 0).all()
