from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.errors import DatasetError
from segwright.core.labels import Labels
from segwright.evaluation.metrics import Counts, case_metrics, joint_histogram, mean_metrics, positions

PLAIN = Labels((("background", 0), ("a", 1), ("b", 2)))
REGIONS = Labels((("background", 0), ("whole", (1, 2, 3)), ("core", (2, 3)), ("tip", 3)), (1, 2, 3))
IGNORE = Labels((("background", 0), ("a", 1), ("b", 2), ("ignore", 3)))
REGIONS_IGNORE = Labels((("background", 0), ("whole", (1, 2)), ("core", (2,)), ("ignore", 3)), (1, 2))

GAPS = Labels((("background", 0), ("whole", (1, 3)), ("core", 3), ("ignore", 4)), (1, 3))


def by_masks(reference: np.ndarray, prediction: np.ndarray, labels: Labels) -> dict:
    """Method 11.1 word for word: one mask a structure."""
    valid = np.ones(reference.shape, bool) if labels.ignore_label is None else reference != labels.ignore_label
    result = {}
    for key in labels.foreground_keys:
        r = np.isin(reference, key if isinstance(key, tuple) else (key,))
        p = np.isin(prediction, key if isinstance(key, tuple) else (key,))
        result[key] = Counts(
            tp=int((r & p & valid).sum()),
            fp=int((~r & p & valid).sum()),
            fn=int((r & ~p & valid).sum()),
            tn=int((~r & ~p & valid).sum()),
        )
    return result


@pytest.mark.parametrize("labels", [PLAIN, REGIONS, IGNORE, REGIONS_IGNORE, GAPS])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), dtype=st.sampled_from(["uint8", "int16", "int32", "uint16"]))
def test_counts_equal_masks(labels: Labels, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 6, (3, 7, 11)).astype(dtype)  # values beyond the declared ones too
    prediction = rng.integers(0, 6, (3, 7, 11)).astype(np.uint8)
    assert case_metrics(reference, prediction, labels) == by_masks(reference, prediction, labels)


def test_chunks_and_air_do_not_change_counts() -> None:
    rng = np.random.default_rng(0)
    reference, prediction = np.zeros((2, 60, 100, 110), np.uint8)
    reference[10:20, 5:50] = rng.integers(0, 3, (10, 45, 110))
    prediction[12:25, 5:50] = rng.integers(0, 3, (13, 45, 110))
    assert case_metrics(reference, prediction, PLAIN) == by_masks(reference, prediction, PLAIN)
    assert joint_histogram(reference, prediction, PLAIN).sum() == reference.size


def test_negative_values_are_counted_as_undeclared() -> None:
    histogram = joint_histogram(np.array([-1, 0, 1], np.int16), np.array([1, 1, 1], np.uint8), PLAIN)
    assert histogram[3, 1] == 1 and histogram[0, 1] == 1 and histogram[1, 1] == 1


def test_a_table_has_as_many_rows_as_values_however_far_apart_they_are() -> None:
    far = Labels((("background", 0), ("whole", (3, 300, 30_000)), ("core", 30_000)), (3, 30_000))
    values = np.array([-5, 0, 3, 4, 300, 30_000, 32_000], np.int16)
    reference, prediction = (array.reshape(1, 7, 7) for array in np.meshgrid(values, values))
    histogram = joint_histogram(reference, prediction, far)
    assert histogram.shape == (5, 5)
    assert histogram[3, 2] == 1 and histogram[0, 4] == 3 and histogram[4, 4] == 9  # of undeclared values there are 3
    assert case_metrics(reference, prediction, far) == by_masks(reference, prediction, far)
    assert case_metrics(reference, prediction, far)[3, 300, 30_000] == Counts(tp=9, fp=12, fn=12, tn=16)


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 1, 2, 4), (0, 300)])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_positions_among_declared_values(values: tuple[int, ...], dtype: str) -> None:
    array = np.array([[0, 1, 2, 3, 4, 100]], dtype)
    found = positions(array, values)
    expected = [values.index(value) if value in values else len(values) for value in array[0].tolist()]
    assert found.tolist() == [expected] and found.dtype == np.int64
    assert array.tolist() == [[0, 1, 2, 3, 4, 100]] and positions(array[:, :0], values).shape == (1, 0)


def test_absent_structure_is_nan_and_false_alarm_is_zero() -> None:
    nothing = np.zeros((1, 2, 2), np.uint8)
    alarm = nothing.copy()
    alarm[0, 0, 0] = 1
    assert math.isnan(case_metrics(nothing, nothing, PLAIN)[1].dice)
    assert math.isnan(case_metrics(nothing, nothing, PLAIN)[1].iou)
    assert case_metrics(nothing, alarm, PLAIN)[1].dice == 0.0
    assert case_metrics(nothing, alarm, PLAIN)[1] == Counts(tp=0, fp=1, fn=0, tn=3)


def test_dice_and_iou_of_known_counts() -> None:
    counts = Counts(tp=6, fp=2, fn=1, tn=91)
    assert counts.dice == pytest.approx(12 / 15, abs=1e-15)
    assert counts.iou == pytest.approx(6 / 9, abs=1e-15)
    assert counts.to_json()["n_pred"] == 8 and counts.to_json()["n_ref"] == 7
    assert Counts.from_json(counts.to_json()) == counts


def test_means_leave_out_nan_by_structure_but_not_over_structures() -> None:
    absent, half, full = Counts(0, 0, 0, 9), Counts(1, 1, 1, 6), Counts(2, 0, 0, 7)
    mean, foreground = mean_metrics([{1: half, 2: absent}, {1: full, 2: absent}], (1, 2))
    assert mean[1]["Dice"] == pytest.approx(0.75)
    assert mean[1]["TP"] == 1.5
    assert math.isnan(mean[2]["Dice"])
    assert math.isnan(foreground["Dice"])
    assert foreground["TN"] == pytest.approx((6.5 + 9) / 2)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(DatasetError, match="shape"):
        joint_histogram(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8), PLAIN)
