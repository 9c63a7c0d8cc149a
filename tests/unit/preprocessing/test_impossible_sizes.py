"""A header that claims metres instead of millimetres is refused before anything is resampled."""

from __future__ import annotations

import dataclasses

import pytest

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.preprocessing.case import plan_geometry
from tests.fuzz.models import preprocess_plan

PLAN = dataclasses.replace(preprocess_plan(), spacing_mm=(1.0, 1.0, 1.0))
BOX = ((0, 30), (0, 50), (0, 40))


def grid(*spacing_zyx: float) -> Geometry:
    return Geometry((30, 50, 40), spacing_zyx, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def test_an_impossible_spacing_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"from 1000 x 1000 x 1000 mm .* 30000 x 50000 x 40000 voxels; correct the"):
        plan_geometry(grid(1e3, 1e3, 1e3), BOX, PLAN)


def test_large_cases_pass() -> None:
    assert plan_geometry(grid(20.0, 20.0, 20.0), BOX, PLAN).shape == (600, 1000, 800)
