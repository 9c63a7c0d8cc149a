"""The planners against published numbers (method 3.15, 3.16, 15) and against recorded runs of the public planners."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import PlansError, SettingsError
from segwright.core.settings import PlanningSettings
from segwright.planning import PLANNERS, make_plans

MakeInputs = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
GOLDEN = json.loads((Path(__file__).parent / "golden_plans.json").read_text(encoding="utf-8"))
HIPPOCAMPUS = json.loads((Path(__file__).parent / "hippocampus_plans.json").read_text(encoding="utf-8"))


def plan(make_inputs: MakeInputs, settings: PlanningSettings | None = None, **dataset: Any) -> dict[str, Any]:
    fingerprint, facts = make_inputs(**dataset)
    plans, _ = make_plans(fingerprint, facts, settings or PlanningSettings(), "Dataset004_Hippocampus", "SimpleITKIO")
    return plans.to_json()


def test_hippocampus_plans_complete(make_inputs: MakeInputs) -> None:
    """Method 3.15, with types and key order; segwright's own additions stand under one key."""
    plans = plan(make_inputs)
    plans.pop("segwright")
    assert json.dumps(plans, indent=1) == json.dumps(HIPPOCAMPUS, indent=1)


# entries of `labels`, background included; they enter the memory estimate
NUM_LABELS = {
    "D1": 4, "D2": 2, "D3": 3, "D4": 3, "D5": 3, "D6": 2, "D7": 3, "D8": 3, "D9": 2, "D10": 2, "D11": 14, "D12": 2,
    "D13": 4, "D15": 2, "D16": 5, "D17": 3, "D18": 5,
}  # fmt: skip


def labels(count: int) -> dict[str, int]:
    return {"background": 0} | {f"label {value}": value for value in range(1, count)}


# spacing, median shape, cases; patch, batch, pools; lowres patch, spacing (first two axes); 2-D patch, batch
PAPER_TABLE = {
    "D1": ((1, 1, 1), (138, 169, 138), 484, (128, 128, 128), 2, (5, 5, 5), None, (192, 160), 105),
    "D2": ((1.37, 1.25, 1.25), (115, 320, 232), 20, (80, 192, 160), 2, (4, 5, 5), None, (320, 256), 40),
    "D3": (
        (1, 0.7676, 0.7676), (482, 512, 512), 131, (128, 128, 128), 2, (5, 5, 5),
        ((128, 128, 128), (2.50, 1.92)), (512, 512), 12,
    ),
    "D4": ((1, 1, 1), (36, 50, 35), 260, (40, 56, 40), 9, (3, 3, 3), None, (56, 40), 366),
    "D5": ((3.6, 0.62, 0.62), (20, 320, 319), 32, (20, 320, 256), 2, (2, 6, 6), None, (320, 320), 32),
    "D6": (
        (1.24, 0.79, 0.79), (252, 512, 512), 63, (80, 192, 160), 2, (4, 5, 5),
        ((80, 192, 160), (2.38, 1.51)), (512, 512), 12,
    ),
    "D7": (
        (2.5, 0.8, 0.8), (96, 512, 512), 282, (40, 224, 224), 2, (3, 5, 5),
        ((64, 192, 192), (2.58, 1.32)), (512, 512), 12,
    ),
    "D8": (
        (1.5, 0.8, 0.8), (150, 512, 512), 303, (64, 192, 192), 2, (4, 5, 5),
        ((64, 192, 192), (2.48, 1.32)), (512, 512), 12,
    ),
    "D9": (
        (1.6, 0.79, 0.79), (187, 512, 512), 41, (64, 192, 160), 2, (4, 5, 5),
        ((64, 192, 192), (2.72, 1.39)), (512, 512), 12,
    ),
    "D10": (
        (3, 0.78, 0.78), (150, 512, 512), 126, (56, 192, 192), 2, (3, 5, 5),
        ((96, 160, 160), (3.09, 1.59)), (512, 512), 12,
    ),
    "D11": (
        (3, 0.76, 0.76), (148, 512, 512), 30, (48, 192, 192), 2, (3, 5, 5),
        ((96, 160, 160), None), (512, 512), 12,
    ),
    "D12": ((2.2, 0.61, 0.61), (39, 327, 327), 50, (28, 256, 256), 2, (2, 6, 6), None, (384, 384), 22),
    "D13": ((5, 1.56, 1.56), (18, 237, 208), 200, (20, 256, 224), 4, (2, 5, 5), None, (256, 224), 56),
    "D15": ((1, 1, 1), (137, 180, 137), 42, (128, 160, 112), 2, (5, 5, 4), None, (192, 160), 106),
    "D16": ((5.95, 1.66, 1.66), (45, 195, 262), 60, (40, 192, 256), 2, (3, 5, 5), None, (224, 288), 50),
    "D17": (
        (0.78, 0.78, 0.78), (525, 512, 512), 206, (128, 128, 128), 2, (5, 5, 5),
        ((128, 128, 128), (2.01, 2.01)), (512, 512), 12,
    ),
    "D18": (
        (2.5, 0.89, 0.89), (171, 512, 512), 40, (64, 192, 160), 2, (4, 5, 5),
        ((80, 192, 160), (3.36, 1.71)), (512, 512), 12,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER_TABLE)
def test_paper_datasets(make_inputs: MakeInputs, name: str) -> None:
    """Method 3.16, v2 column."""
    spacing, shape, cases, patch, batch, pools, low, patch_2d, batch_2d = PAPER_TABLE[name]
    dataset = {"spacing": spacing, "shape": shape, "num_training": cases, "labels": labels(NUM_LABELS[name])}
    configurations = plan(make_inputs, **dataset)["configurations"]
    full, flat = configurations["3d_fullres"], configurations["2d"]
    assert (tuple(full["patch_size"]), full["batch_size"]) == (patch, batch)
    strides = full["architecture"]["arch_kwargs"]["strides"]
    assert tuple(sum(stride[axis] == 2 for stride in strides) for axis in range(3)) == pools
    assert (tuple(flat["patch_size"]), flat["batch_size"]) == (patch_2d, batch_2d)
    if low is None:
        assert set(configurations) == {"2d", "3d_fullres"}
    else:
        assert list(configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
        assert tuple(configurations["3d_lowres"]["patch_size"]) == low[0]
        if low[1] is not None:  # the table prints no spacing for D11
            assert configurations["3d_lowres"]["spacing"][:2] == pytest.approx(low[1], abs=0.006)


def test_prostate_and_heart_networks(make_inputs: MakeInputs) -> None:
    """Method 3.16: strides and kernels of D5 and D13."""
    prostate = plan(make_inputs, spacing=(3.6, 0.62, 0.62), shape=(20, 320, 319), num_training=32)
    network = prostate["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert network["strides"][1:] == [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert network["kernel_sizes"] == [[1, 3, 3]] * 2 + [[3, 3, 3]] * 5
    heart = plan(make_inputs, spacing=(5, 1.56, 1.56), shape=(18, 237, 208), num_training=200)
    network = heart["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert network["strides"][1:] == [[1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert network["kernel_sizes"] == [[1, 3, 3]] + [[3, 3, 3]] * 5


RESIDUAL = [
    ("resenc_m", (3.6, 0.62, 0.62), (20, 320, 319), 32, (20, 256, 256), 2, (320, 320), 32),
    ("resenc_l", (3.6, 0.62, 0.62), (20, 320, 319), 32, (20, 320, 320), 5, (320, 320), 90),
    ("resenc_xl", (3.6, 0.62, 0.62), (20, 320, 319), 32, (20, 320, 320), 8, (320, 320), 133),
    ("resenc_m", (5, 1.56, 1.56), (18, 237, 208), 200, (20, 256, 224), 3, (256, 224), 57),
    ("resenc_l", (5, 1.56, 1.56), (18, 237, 208), 200, (20, 256, 224), 10, (256, 224), 161),
    ("resenc_xl", (5, 1.56, 1.56), (18, 237, 208), 200, (20, 256, 224), 17, (256, 224), 238),
    ("resenc", (1, 1, 1), (36, 50, 35), 260, (40, 56, 40), 9, (56, 40), 366),
    ("resenc_m", (1, 1, 1), (36, 50, 35), 260, (40, 56, 40), 58, (56, 40), 1618),
    ("resenc_l", (1, 1, 1), (36, 50, 35), 260, (40, 56, 40), 178, (56, 40), 4554),
    ("resenc_xl", (1, 1, 1), (36, 50, 35), 260, (40, 56, 40), 183, (56, 40), 6711),
]


@pytest.mark.parametrize(("planner", "spacing", "shape", "cases", "patch", "batch", "patch_2d", "batch_2d"), RESIDUAL)
def test_residual_encoder_planners(
    make_inputs: MakeInputs, planner: str, spacing: Any, shape: Any, cases: int, patch: Any, batch: int, patch_2d: Any,
    batch_2d: int,
) -> None:  # fmt: skip
    """Method 3.15 and 15."""
    dataset = {"spacing": spacing, "shape": shape, "num_training": cases, "labels": labels(4 if cases == 200 else 3)}
    configurations = plan(make_inputs, PlanningSettings(planner=planner), **dataset)["configurations"]
    full, flat = configurations["3d_fullres"], configurations["2d"]
    assert (tuple(full["patch_size"]), full["batch_size"]) == (patch, batch)
    assert (tuple(flat["patch_size"]), flat["batch_size"]) == (patch_2d, batch_2d)
    assert full["data_identifier"] == "nnUNetPlans_3d_fullres"  # shared with the default plans
    blocks = full["architecture"]["arch_kwargs"]["n_blocks_per_stage"]
    assert blocks == [1, 3, 4, 6, 6, 6, 6][: len(blocks)]


def compact(plans: dict[str, Any]) -> dict[str, Any]:
    """The numbers the golden file holds."""
    configurations = {}
    for name, entry in plans["configurations"].items():
        if "inherits_from" in entry:
            configurations[name] = entry
            continue
        network = entry["architecture"]["arch_kwargs"]
        configurations[name] = {key: value for key, value in entry.items() if key in GOLDEN_KEYS} | {
            "features_per_stage": network["features_per_stage"],
            "kernel_sizes": network["kernel_sizes"],
            "strides": network["strides"],
            "blocks": network.get("n_conv_per_stage", network.get("n_blocks_per_stage")),
            "decoder": network["n_conv_per_stage_decoder"],
        }
    top = ("plans_name", "transpose_forward", "transpose_backward", "experiment_planner_used")
    medians = ("original_median_spacing_after_transp", "original_median_shape_after_transp")
    return {key: plans[key] for key in (*top, *medians)} | {"configurations": configurations}


GOLDEN_KEYS = {
    "data_identifier", "batch_size", "patch_size", "median_image_size_in_voxels", "spacing", "normalization_schemes",
    "use_mask_for_norm", "batch_dice", "next_stage", "previous_stage",
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_recorded_runs_of_the_public_planners(make_inputs: MakeInputs, case: dict[str, Any]) -> None:
    """Exact equality, types included (3d_lowres has whole medians, the others floats)."""
    given = case["input"]
    fingerprint, facts = make_inputs(channels=given["channels"], labels=given["labels"])
    fingerprint |= {key: value for key, value in given.items() if key in fingerprint}
    facts["numTraining"] = given["numTraining"]
    options = dict(given["settings"])
    spacing = options.pop("spacing_mm")
    settings = PlanningSettings(**options, spacing_mm=None if spacing is None else tuple(spacing))
    found = compact(make_plans(fingerprint, facts, settings, "Dataset001", "SimpleITKIO")[0].to_json())
    assert json.dumps(found, sort_keys=True) == json.dumps(case["plans"], sort_keys=True)


def test_golden_file_covers_what_it_should() -> None:
    assert len(GOLDEN["cases"]) >= 20 and GOLDEN["versions"]["nnunetv2"] == "2.8.1"
    planners = {case["input"]["settings"]["planner"] for case in GOLDEN["cases"]}
    assert planners == {"default", "resenc", "resenc_m", "resenc_l", "resenc_xl"}
    assert sum("3d_lowres" in case["plans"]["configurations"] for case in GOLDEN["cases"]) >= 5


def test_two_dimensional_images_have_no_3d_configuration(make_inputs: MakeInputs) -> None:
    """Method 3.3."""
    plans = plan(make_inputs, spacing=(999, 1, 1), shape=(1, 480, 640), num_training=100)
    assert list(plans["configurations"]) == ["2d"]


def test_memory_target_scales_the_batch(make_inputs: MakeInputs) -> None:
    """Method 3.7: the reference is proportional to the memory."""
    small = plan(make_inputs, PlanningSettings(planner="resenc_m", gpu_memory_gb=4))["configurations"]["3d_fullres"]
    assert small["batch_size"] == 29


def test_impossible_memory_target_is_an_error_not_a_loop(make_inputs: MakeInputs) -> None:
    with pytest.raises(PlansError, match="gpu_memory_gb 1e-06: not even a patch"):
        plan(make_inputs, PlanningSettings(gpu_memory_gb=1e-6))


def test_limits_beyond_v2(make_inputs: MakeInputs) -> None:
    settings = PlanningSettings(max_patch_size=32, max_stages=3, base_features=8, max_features_3d=16)
    full = plan(make_inputs, settings, shape=(100, 100, 90))["configurations"]["3d_fullres"]
    network = full["architecture"]["arch_kwargs"]
    assert max(full["patch_size"]) <= 32 and network["features_per_stage"] == [8, 16, 16] and network["n_stages"] == 3


def test_a_patch_limit_brings_a_cascade_to_small_machines(make_inputs: MakeInputs) -> None:
    configurations = plan(make_inputs, PlanningSettings(max_patch_size=32), shape=(72, 80, 76))["configurations"]
    assert list(configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert all(max(configurations[name]["patch_size"]) <= 32 for name in ("2d", "3d_lowres", "3d_fullres"))
    assert configurations["3d_cascade_fullres"] == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


@pytest.mark.parametrize("settings", [{"max_patch_size": 8}, {"spacing_mm": (50.0, 1.0, 1.0)}, {"max_stages": 2}])
def test_thin_images_never_get_an_empty_patch(make_inputs: MakeInputs, settings: dict[str, Any]) -> None:
    """A slab of two slices can shrink to less than half a voxel at a coarse spacing."""
    plans = plan(make_inputs, PlanningSettings(**settings), shape=(2, 300, 300))
    for entry in plans["configurations"].values():
        assert "inherits_from" in entry or min(entry["patch_size"]) >= 1


def test_channels_follow_their_number_not_the_order_of_keys(make_inputs: MakeInputs) -> None:
    fingerprint, facts = make_inputs(channels=["T1"] * 11 + ["CT"])
    facts["channel_names"] = dict(sorted(facts["channel_names"].items()))  # "0", "1", "10", "11", "2", ...
    plans, _ = make_plans(fingerprint, facts, PlanningSettings(), "D", "SimpleITKIO")
    schemes = plans.configuration("2d").normalization_schemes
    assert schemes.index("CTNormalization") == 11


def test_missing_intensities_are_refused(make_inputs: MakeInputs) -> None:
    fingerprint, facts = make_inputs(channels=["T1"])
    facts["channel_names"]["1"] = "T2"
    with pytest.raises(PlansError, match="no intensities of channel 1"):
        make_plans(fingerprint, facts, PlanningSettings(), "D", "SimpleITKIO")


def test_unknown_planner_is_named() -> None:
    assert set(PLANNERS.names()) >= {"default", "resenc", "resenc_m", "resenc_l", "resenc_xl"}
    with pytest.raises(SettingsError, match="did you mean resenc_xl"):
        PLANNERS.get("resenc_xll")


def test_planning_needs_no_torch() -> None:
    """And little else: the whole command must start in under half a second."""
    code = (
        "import sys; import segwright.planning;"
        "print([name for name in ('torch', 'pandas', 'scipy', 'SimpleITK') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
