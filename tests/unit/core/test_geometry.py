"""How two grids differ (method 1.5 point 7), and geometry in JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core.geometry import Agreement, Geometry, compare_geometries

GRID = Geometry((10, 20, 30), (3.0, 1.0, 0.5), (1.0, 2.0, 3.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
TURNED = (0.0, -1.0, 0, 1.0, 0, 0, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("change", "agreement", "says"),
    [
        ({}, Agreement.EQUAL, ""),
        ({"spacing_zyx": (3.0 * (1 + 9e-6), 1.0, 0.5)}, Agreement.EQUAL, ""),  # numpy's tolerance, as v2
        ({"spacing_zyx": (3.0015, 1.0, 0.5)}, Agreement.SAME_GRID, "spacing (3, 1, 0.5) mm against (3.0015, 1, 0.5)"),
        ({"spacing_zyx": (3.01, 1.0, 0.5)}, Agreement.WRONG, "spacing (3, 1, 0.5) mm against (3.01, 1, 0.5) mm"),
        ({"shape_zyx": (9, 20, 30)}, Agreement.WRONG, "shape (10, 20, 30) against (9, 20, 30) (z, y, x)"),
        ({"origin_xyz": (1.00005, 2.0, 3.0)}, Agreement.EQUAL, ""),
        ({"origin_xyz": (1.0, 2.0, 99.0)}, Agreement.SAME_GRID, "origin (1, 2, 3) against (1, 2, 99)"),
        ({"direction_xyz": TURNED}, Agreement.SAME_GRID, "direction"),
    ],
)
def test_differences(change: dict[str, tuple[float, ...]], agreement: Agreement, says: str) -> None:
    found, text = compare_geometries(GRID, replace(GRID, **change))
    assert found is agreement
    assert text.startswith(says) and bool(text) == bool(says)


def test_all_slight_differences_are_named() -> None:
    other = replace(GRID, origin_xyz=(9.0, 9.0, 9.0), direction_xyz=TURNED, spacing_zyx=(3.002, 1.0, 0.5))
    _, text = compare_geometries(GRID, other)
    assert [part.split()[0] for part in text.split("; ")] == ["spacing", "origin", "direction"]


def test_files_of_different_dimension_are_the_same_grid_at_best() -> None:
    flat = Geometry((10, 20, 30), (3.0, 1.0, 0.5), (1.0, 2.0), (1.0, 0, 0, 1.0), dimension=2)
    assert compare_geometries(GRID, flat)[0] is Agreement.SAME_GRID


@given(
    st.tuples(*[st.integers(1, 500)] * 3),
    st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    st.sampled_from([2, 3]),
    st.data(),
)
def test_json_round_trip(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], dimension: int, data: st.DataObject
) -> None:
    numbers = st.floats(-1e6, 1e6)
    origin = tuple(data.draw(st.lists(numbers, min_size=dimension, max_size=dimension)))
    direction = tuple(data.draw(st.lists(numbers, min_size=dimension**2, max_size=dimension**2)))
    geometry = Geometry(shape, spacing, origin, direction, dimension)
    again = Geometry.from_json(json.loads(json.dumps(geometry.to_json())))
    assert again == geometry and compare_geometries(geometry, again) == (Agreement.EQUAL, "")


def test_json_holds_plain_numbers_only() -> None:
    odd = Geometry(tuple(np.array([1, 2, 3])), tuple(np.ones(3)), (0.0,) * 3, (0.0,) * 9)  # type: ignore[arg-type]
    made = Geometry.from_json(odd.to_json())
    assert all(type(v) is int for v in made.shape_zyx) and all(type(v) is float for v in made.spacing_zyx)
