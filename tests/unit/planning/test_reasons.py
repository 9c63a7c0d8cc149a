"""reasons.md: every planned value with its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from segwright.core.settings import PlanningSettings
from segwright.planning import make_plans
from segwright.planning.reasons import Reasons

MakeInputs = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


def reasons_of(make_inputs: MakeInputs, dataset: dict[str, Any] | None = None, **settings: Any) -> Reasons:
    fingerprint, facts = make_inputs(**(dataset or {}))
    return make_plans(fingerprint, facts, PlanningSettings(**settings), "Dataset004_Hippocampus", "SimpleITKIO")[1]


def test_patch_and_batch_sentences(make_inputs: MakeInputs) -> None:
    reasons = reasons_of(make_inputs)
    assert reasons.of("3d_fullres", "patch") == (
        "40x56x40: the median image 36x50x35 rounded up to multiples of 8; 19.2 of 560 million feature-map entries."
    )
    assert reasons.of("3d_fullres", "batch size") == (
        "9: 5 % of the dataset's 16.4 million voxels is 9 patches, the most a batch may cover; memory allows 58 "
        "(560 / 19.2 million x 2)."
    )


def test_reduced_patch_and_low_resolution_sentences(make_inputs: MakeInputs) -> None:
    reasons = reasons_of(make_inputs, {"spacing": (1, 0.7676, 0.7676), "shape": (482, 512, 512), "num_training": 131})
    patch = reasons.of("3d_fullres", "patch")
    assert patch.startswith("128x128x128: started as 215x280x280 (256^3 voxels, equally long in millimetres), legal")
    assert "shortened 13 times" in patch and "452.8 of 560 million" in patch
    low = reasons.of("3d_fullres", "low resolution")
    assert low.startswith("yes: at full resolution the patch covers 1.66 %") and "31 steps of 3 %" in low


def test_spacing_and_normalization_sentences(make_inputs: MakeInputs) -> None:
    dataset = {"spacing": (0.6, 0.6, 6), "shape": (320, 320, 20), "channels": ("CT", "T1"), "relative_size": 0.5}
    reasons = reasons_of(make_inputs, dataset)
    assert "axis 2 is more than 3 times coarser" in reasons.of("dataset", "spacing")
    assert "axis 2 is the coarsest (6 mm)" in reasons.of("dataset", "transpose")
    assert "named 'CT'" in reasons.of("dataset", "normalization of channel 0")
    assert "leaves 50 % of the median image, below 75 %" in reasons.of("dataset", "normalization of channel 1")


@pytest.mark.parametrize("planner", ["default", "resenc_l"])
def test_every_planned_value_has_its_reason(make_inputs: MakeInputs, planner: str) -> None:
    large = {"spacing": (1, 0.77, 0.77), "shape": (482, 512, 512)}
    reasons = reasons_of(make_inputs, large, planner=planner)
    fields = {"spacing", "median image", "patch", "batch size", "stages", "kernels", "features", "network",
              "resampling", "batch Dice"}  # fmt: skip
    for configuration in ("2d", "3d_lowres", "3d_fullres"):
        assert {item.field for item in reasons.items if item.configuration == configuration} >= fields
    text = reasons.to_markdown()
    assert text.startswith("# Why these plans: Dataset004_Hippocampus\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## All configurations", "## 2d", "## 3d_lowres", "## 3d_fullres", "## 3d_cascade_fullres",
    ]  # fmt: skip


def test_limits_are_mentioned(make_inputs: MakeInputs) -> None:
    reasons = reasons_of(make_inputs, max_patch_size=32, max_stages=3)
    assert "max_patch_size 32" in reasons.of("3d_fullres", "patch")
    assert "max_stages 3 is reached" in reasons.of("3d_fullres", "stages")
