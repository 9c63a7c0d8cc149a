from __future__ import annotations

from typing import Any

import pytest

from segwright.core.errors import PlansError
from segwright.planning.spacing import check_fingerprint, full_resolution_spacing, median_shape_at, transposition


def cases(spacings: list[list[float]], shapes: list[list[int]]) -> dict[str, Any]:
    return {"spacings": spacings, "shapes_after_crop": shapes}


def test_median_spacing() -> None:
    target = full_resolution_spacing(cases([[1, 1, 1], [2, 1, 1], [4, 1, 3]], [[50, 50, 50]] * 3))
    assert target.spacing_mm == (2.0, 1.0, 1.0) and target.anisotropic_axis is None


def test_anisotropic_axis_takes_the_tenth_percentile() -> None:
    """Method 3.1: 10th percentile of 3, 4, 5, 6, 7 is 3.4."""
    fingerprint = cases([[z, 0.5, 0.5] for z in (3, 4, 5, 6, 7)], [[20, 300, 300]] * 5)
    target = full_resolution_spacing(fingerprint)
    assert target.spacing_mm == pytest.approx((3.4, 0.5, 0.5)) and target.anisotropic_axis == 0


def test_but_never_finer_than_the_others() -> None:
    fingerprint = cases([[0.2, 1, 1]] + [[5, 1, 1]] * 2, [[20, 300, 300]] * 3)
    fingerprint["spacings"][1] = [0.2, 1, 1]
    fingerprint["spacings"].append([5, 1, 1])
    fingerprint["spacings"].append([5, 1, 1])
    fingerprint["shapes_after_crop"] = [[20, 300, 300]] * 5
    assert full_resolution_spacing(fingerprint).spacing_mm[0] == pytest.approx(1 + 1e-5)


def test_both_conditions_are_needed() -> None:
    """Method 3.1: coarse spacing alone (many slices) is not enough."""
    spacings = [[z, 0.5, 0.5] for z in (3, 4, 5, 6, 7)]
    assert full_resolution_spacing(cases(spacings, [[100, 300, 300]] * 5)).spacing_mm[0] == 5


def test_override_wins() -> None:
    fingerprint = cases([[5, 1, 1]], [[20, 300, 300]])
    assert full_resolution_spacing(fingerprint, (2, 1, 1)).spacing_mm == (2.0, 1.0, 1.0)
    with pytest.raises(PlansError, match="three positive"):
        full_resolution_spacing(fingerprint, (2, 1))


def test_transposition_brings_the_coarsest_axis_first() -> None:
    """Method 3.2; the first of equal ones."""
    assert transposition((1, 1, 5), True) == ((2, 0, 1), (1, 2, 0))
    assert transposition((1, 5, 1), True) == ((1, 0, 2), (1, 0, 2))
    assert transposition((1, 5, 5), True) == ((1, 0, 2), (1, 0, 2))
    assert transposition((1, 1, 5), False) == ((0, 1, 2), (0, 1, 2))


def test_median_shape_rounds_each_case_half_to_even() -> None:
    fingerprint = cases([[1, 1, 1], [1, 1, 1]], [[5, 10, 20], [7, 10, 21]])
    # axis 0: 2.5 -> 2 and 3.5 -> 4, median 3; axis 2: 10 and 10.5 -> 10
    assert median_shape_at(fingerprint, (2, 1, 2), (2, 0, 1)) == (10.0, 3.0, 10.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacings": []}, "0 spacings"),
        ({"spacings": [[1, 1, 0]]}, "not three positive"),
        ({"shapes_after_crop": [[1, 1]]}, "not three positive"),
    ],
)
def test_a_broken_fingerprint_is_refused(change: dict[str, Any], message: str) -> None:
    good = cases([[1, 1, 1]], [[10, 10, 10]])
    good |= {"foreground_intensity_properties_per_channel": {}, "median_relative_size_after_cropping": 1}
    check_fingerprint(good)
    with pytest.raises(PlansError, match=message):
        check_fingerprint(good | change)
    with pytest.raises(PlansError, match="shapes_after_crop is missing"):
        check_fingerprint({key: value for key, value in good.items() if key != "shapes_after_crop"})
