"""Whole plans files of random and real datasets against those nnU-Net v2's planners wrote (method 3)."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import pytest

from segwright.core.settings import PlanningSettings
from segwright.planning import make_plans
from tests.parity.inputs import GOLDEN

RECORDED, REAL = (
    json.loads(gzip.decompress((GOLDEN / name).read_bytes())) for name in ("plans.json.gz", "real_plans.json.gz")
)


@pytest.mark.parametrize(
    "case", RECORDED["cases"] + REAL["cases"], ids=lambda case: f"{case['name'][7:10]} {case['kind']}"
)
def test_plans_file(case: dict[str, Any]) -> None:
    """Every key, value, type and the order of keys; segwright's own additions stand under one key."""
    given = case["settings"]
    spacing = given["spacing_mm"]
    settings = PlanningSettings(**{**given, "spacing_mm": None if spacing is None else tuple(spacing)})
    plans, _ = make_plans(case["fingerprint"], case["facts"], settings, case["name"], "SimpleITKIO")
    found = plans.to_json()
    found.pop("segwright")
    assert json.dumps(found, indent=1) == json.dumps(case["plans"], indent=1)


def test_what_is_covered() -> None:
    cases = RECORDED["cases"]
    assert len(cases) >= 60 and RECORDED["versions"]["nnunetv2"] == "2.8.1"
    kinds = Counter(case["kind"] for case in cases)
    assert len(kinds) == 12 and min(kinds.values()) >= 5
    planners = Counter(case["settings"]["planner"] for case in cases)
    assert set(planners) == {"default", "resenc", "resenc_m", "resenc_l", "resenc_xl"} and min(planners.values()) >= 10
    memory = {case["settings"]["gpu_memory_gb"] for case in cases}
    assert memory >= {None, 4.0, 80.0} and len(memory) == 7
    assert sum("3d_cascade_fullres" in case["plans"]["configurations"] for case in cases) >= 10
    real = {(case["name"][:10], case["settings"]["planner"]) for case in REAL["cases"]}
    assert len(real) == len(REAL["cases"]) and len({dataset for dataset, _ in real}) >= 6
