"""make_plans: your own configurations, overrides, pinned plans, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import PlansError, SegwrightError, SettingsError
from segwright.core.plans import Plans
from segwright.core.settings import ConfigurationOverride, PlanningSettings
from segwright.planning import make_plans
from segwright.planning.reasons import Reasons

MakeInputs = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
LARGE = {"spacing": (1, 0.77, 0.77), "shape": (482, 512, 512), "num_training": 131}


def planned(make_inputs: MakeInputs, dataset: dict[str, Any] | None = None, **settings: Any) -> tuple[Plans, Reasons]:
    fingerprint, facts = make_inputs(**(dataset or {}))
    return make_plans(fingerprint, facts, PlanningSettings(**settings), "Dataset004_Hippocampus", "SimpleITKIO")


def override(name: str, **values: Any) -> dict[str, Any]:
    return {"overrides": {name: ConfigurationOverride(**values)}}


def test_patch_override_derives_the_network_again(make_inputs: MakeInputs) -> None:
    plans, reasons = planned(make_inputs, **override("3d_fullres", patch_size=(32, 48, 16)))
    full = plans.configuration("3d_fullres")
    assert full.patch_size == (32, 48, 16)
    assert full.architecture.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1))
    assert full.batch_size == round(36 * 50 * 35 * 260 * 0.05 / (32 * 48 * 16))
    assert "given by you instead of 40x56x40" in reasons.of("3d_fullres", "patch")
    assert plans.configuration("2d").patch_size == (56, 40)


def test_an_illegal_patch_names_the_nearest_legal_sizes(make_inputs: MakeInputs) -> None:
    with pytest.raises(SettingsError) as caught:
        planned(make_inputs, **override("3d_fullres", patch_size=(40, 50, 40)))
    assert str(caught.value) == (
        "planning.overrides.3d_fullres.patch_size 40x50x40: axis 1: 50 is not divisible by 8, "
        "the nearest legal sizes are 48 and 56"
    )


@pytest.mark.parametrize("patch", [(48, 48), (40, 40, 0)])
def test_an_override_needs_one_positive_number_an_axis(make_inputs: MakeInputs, patch: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="must be 3 positive numbers"):
        planned(make_inputs, **override("3d_fullres", patch_size=patch))


def test_batch_override_changes_nothing_else(make_inputs: MakeInputs) -> None:
    before, _ = planned(make_inputs)
    after, reasons = planned(make_inputs, **override("3d_fullres", batch_size=3))
    changed = before.to_json()
    changed["configurations"]["3d_fullres"]["batch_size"] = 3
    assert after.to_json() == changed
    assert reasons.of("3d_fullres", "batch size") == "3: given by you; 9 was planned."


def test_spacing_override_replans_the_configuration(make_inputs: MakeInputs) -> None:
    plans, _ = planned(make_inputs, **override("3d_fullres", spacing_mm=(2.0, 1.0, 1.0)))
    full = plans.configuration("3d_fullres")
    assert full.spacing_mm == (2.0, 1.0, 1.0) and full.median_size_voxels == (18.0, 50.0, 35.0)
    # made for a median of 18x50x35 at 2x1x1 mm: the first axis joins the pooling from the second round on
    assert full.patch_size == (20, 56, 40) and full.architecture.strides[1] == (1, 2, 2)
    assert plans.configuration("2d").spacing_mm == (1.0, 1.0)


def test_spacing_override_in_planned_axis_order(make_inputs: MakeInputs) -> None:
    dataset = {"spacing": (1, 1, 4), "shape": (100, 90, 20)}
    plans, _ = planned(make_inputs, dataset, **override("2d", spacing_mm=(2.0, 1.0)))
    assert plans.transpose_forward == (2, 0, 1)
    assert plans.configuration("2d").median_size_voxels == (50.0, 90.0)


def test_an_override_reaches_what_inherits(make_inputs: MakeInputs) -> None:
    plans, _ = planned(make_inputs, LARGE, **override("3d_fullres", patch_size=(96, 96, 96)))
    assert plans.configuration("3d_cascade_fullres").patch_size == (96, 96, 96)
    plans, _ = planned(make_inputs, LARGE, **override("3d_cascade_fullres", patch_size=(96, 96, 96)))
    assert plans.configuration("3d_fullres").patch_size == (128, 128, 128)


def test_overriding_a_standard_configuration_that_was_not_planned_is_said_not_refused(make_inputs: MakeInputs) -> None:
    plans, reasons = planned(make_inputs, **override("3d_lowres", batch_size=2))
    assert "3d_lowres" not in plans.configurations
    assert "not used" in reasons.of("dataset", "override of 3d_lowres")


def test_overriding_an_unknown_configuration_is_refused(make_inputs: MakeInputs) -> None:
    with pytest.raises(SettingsError, match=r"no such configuration .*did you mean 3d_fullres\?"):
        planned(make_inputs, **override("3d_fulres", batch_size=2))


def test_added_configuration_inherits(make_inputs: MakeInputs) -> None:
    plans, reasons = planned(make_inputs, add={"3d_bs4": {"inherits_from": "3d_fullres", "batch_size": "4"}})
    assert plans.configurations["3d_bs4"] == {"inherits_from": "3d_fullres", "batch_size": 4}
    assert plans.configuration("3d_bs4").batch_size == 4 and plans.configuration("3d_bs4").patch_size == (40, 56, 40)
    assert "batch_size 4; everything else from 3d_fullres" in reasons.of("3d_bs4", "added")


def test_added_cascade_becomes_a_next_stage(make_inputs: MakeInputs) -> None:
    added = {"3d_second": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres", "batch_size": 3}}
    plans, _ = planned(make_inputs, LARGE, add=added)
    assert plans.configuration("3d_lowres").next_stages == ("3d_cascade_fullres", "3d_second")


def test_overrides_reach_added_configurations(make_inputs: MakeInputs) -> None:
    plans, _ = planned(
        make_inputs,
        add={"3d_small": {"inherits_from": "3d_fullres"}},
        **override("3d_small", patch_size=(16, 16, 16)),
    )
    assert plans.configuration("3d_small").patch_size == (16, 16, 16)
    assert plans.configuration("3d_fullres").patch_size == (40, 56, 40)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("3d_fullres", {"batch_size": 4}, "exists already"),
        ("my conf", {"inherits_from": "2d"}, "letters, digits and _"),
        ("model", {"inherits_from": "2d"}, "must not be one of"),
        ("x", {"inherits_from": "2d", "batch_sise": 4}, "batch_sise is not known; did you mean batch_size"),
        ("x", {"inherits_from": "2d", "batch_size": "many"}, "must be a whole number"),
        ("x", {"inherits_from": "4d"}, "no configuration 4d"),
        ("x", {"inherits_from": "x"}, "in a circle"),
        ("x", {"batch_size": 4}, "lacks 'data_identifier'"),
        ("x", {"inherits_from": "3d_fullres", "patch_size": [40, 50, 40]}, "multiple of 8, such as 48 or 56"),
        ("x", {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}, "which is no configuration"),
        ("x", {"inherits_from": "3d_fullres", "previous_stage": "2d"}, "must both be 2-D or both 3-D"),
        ("x", {"inherits_from": "3d_fullres", "previous_stage": "x"}, "in a circle"),
        ("x", {"inherits_from": "2d", "normalization_schemes": ["ZScoreNormalization"] * 2}, "normalizes 2 channels"),
    ],
)
def test_bad_additions_are_refused(make_inputs: MakeInputs, name: str, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SegwrightError, match=message):
        planned(make_inputs, add={name: entry})


def test_pinned_plans_are_used_as_they_are(make_inputs: MakeInputs, tmp_path: Path) -> None:
    original, _ = planned(make_inputs)
    file = tmp_path / "plans.json"
    file.write_text(json.dumps(original.to_json()))
    fingerprint, facts = make_inputs(shape=(100, 120, 90), labels={"background": 0, "other": 1})
    settings = PlanningSettings(plans_file=str(file))
    plans, reasons = make_plans(fingerprint, facts, settings, "Dataset005_New", "NibabelIO")
    assert plans.configurations == original.configurations and plans.intensities == original.intensities
    assert (plans.dataset_name, plans.reader) == ("Dataset005_New", "NibabelIO")
    assert "Dataset004_Hippocampus" in reasons.of("dataset", "plans file")
    assert "this dataset has {'background': 0, 'other': 1}" in reasons.of("dataset", "labels of the plans file")


def test_pinned_plans_of_v2_without_our_key_work(make_inputs: MakeInputs) -> None:
    file = Path(__file__).parent / "hippocampus_plans.json"
    plans, _ = planned(make_inputs, plans_file=str(file), **override("3d_fullres", batch_size=5))
    assert plans.configuration("3d_fullres").batch_size == 5


def test_pinned_plans_must_fit_the_channels(make_inputs: MakeInputs) -> None:
    file = Path(__file__).parent / "hippocampus_plans.json"
    with pytest.raises(PlansError, match=r"normalizes 1 channels, but the dataset has 2 \(T1, T2\)"):
        planned(make_inputs, {"channels": ("T1", "T2")}, plans_file=str(file))


def test_a_pinned_file_that_is_none_is_named(make_inputs: MakeInputs, tmp_path: Path) -> None:
    with pytest.raises(SegwrightError, match=r"missing\.json: the file does not exist"):
        planned(make_inputs, plans_file=str(tmp_path / "missing.json"))
    (tmp_path / "plans.json").write_text("[]")
    with pytest.raises(PlansError, match=r"plans\.json"):
        planned(make_inputs, plans_file=str(tmp_path / "plans.json"))
