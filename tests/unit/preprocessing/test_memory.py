"""The declared memory covers what a case really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from segwright.core.slices import PreprocessPlan
from segwright.preprocessing.memory import PROGRAM_MB, estimate_memory_mb, stored_shape

MakePlan = Callable[..., PreprocessPlan]

MEASURE = """
import json, sys
import numpy as np
from segwright.core.geometry import Geometry
from segwright.core.slices import PreprocessPlan
from segwright.images.image import Image, LabelMap
from segwright.preprocessing.case import preprocess_case
plan = PreprocessPlan.from_json(json.loads(sys.argv[1]))
shape = (110, 130, 120)
geometry = Geometry(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
channels = len(plan.normalization_schemes)
image = np.random.default_rng(0).normal(50, 60, (channels, *shape)).astype(np.float32)
label = np.digitize(np.indices(shape).sum(axis=0, dtype=np.int32), [150, 200]).astype(np.uint8)
preprocess_case(Image(image, geometry, "float32"), LabelMap(label, geometry, "uint8"), plan)
# VmHWM, not getrusage: that one starts at the peak of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize(
    "changes",
    [{"spacing_mm": (0.7, 0.8, 0.75)}, {"order_of_steps": "resample_first", "spacing_mm": (1.2, 1.3, 1.1)}],
)
def test_estimate_is_above_the_measured_peak_and_not_far(make_plan: MakePlan, changes: dict) -> None:
    plan = make_plan(**changes)
    command = [sys.executable, "-c", MEASURE, json.dumps(plan.to_json())]
    measured_mb = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    estimate_mb = estimate_memory_mb((110, 130, 120), (1.0, 1.0, 1.0), plan, 1)
    assert measured_mb < estimate_mb < 3 * measured_mb


def test_estimate_grows_with_voxels_channels_and_finer_targets(make_plan: MakePlan) -> None:
    plan = make_plan()
    small = estimate_memory_mb((100, 100, 100), (1, 1, 1), plan, 1)
    assert PROGRAM_MB < small < estimate_memory_mb((200, 100, 100), (1, 1, 1), plan, 1)
    assert small < estimate_memory_mb((100, 100, 100), (1, 1, 1), plan, 4)
    assert small < estimate_memory_mb((100, 100, 100), (2, 2, 2), plan, 1)


def test_two_dimensional_plans_keep_the_slice_axis(make_plan: MakePlan) -> None:
    flat = make_plan(spacing_mm=(1.0, 1.0), transpose_forward=(2, 0, 1), transpose_backward=(1, 2, 0))
    assert stored_shape((100, 60, 30), (1.5, 0.5, 9), flat) == (30, 150, 30)
    assert estimate_memory_mb((100, 100, 30), (1, 1, 9), flat, 1) == estimate_memory_mb(
        (30, 100, 100), (1, 1, 1), make_plan(spacing_mm=(1.0, 1.0)), 1
    )
