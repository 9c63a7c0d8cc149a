"""v2's plans schema: read, resolved, written back, and cut into slices."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.architecture import Architecture
from segwright.core.errors import PlansError
from segwright.core.labels import Labels
from segwright.core.plans import Configuration, IntensityStatistics, Plans
from segwright.core.slices import PredictPlan, PreprocessPlan, TrainPlan, predict_slice, preprocess_slice, train_slice

PLANS_FILE = Path(__file__).parents[1] / "planning" / "hippocampus_plans.json"
LABELS = Labels.from_json({"labels": {"background": 0, "anterior": 1, "posterior": 2}})


@pytest.fixture
def record() -> dict[str, Any]:
    """Method 3.15: the plans of Hippocampus."""
    content: dict[str, Any] = json.loads(PLANS_FILE.read_text(encoding="utf-8"))
    return content


def test_round_trip_keeps_every_byte(record: dict[str, Any]) -> None:
    assert json.dumps(Plans.from_json(record).to_json()) == json.dumps(record)


def test_a_resolved_configuration_round_trips(record: dict[str, Any]) -> None:
    for name, entry in record["configurations"].items():
        assert json.dumps(Configuration.from_json(name, entry).to_json()) == json.dumps(entry)


def test_whole_medians_of_3d_lowres_stay_whole(record: dict[str, Any]) -> None:
    entry = record["configurations"]["3d_fullres"] | {"median_image_size_in_voxels": [36, 50, 35]}
    assert json.dumps(Configuration.from_json("3d_lowres", entry).to_json()["median_image_size_in_voxels"]) == (
        "[36, 50, 35]"
    )


def test_inheritance_is_shallow_and_recursive(record: dict[str, Any]) -> None:
    """Method 3.14."""
    record["configurations"]["a"] = {"inherits_from": "3d_fullres", "batch_size": 4}
    record["configurations"]["b"] = {"inherits_from": "a", "previous_stage": "3d_fullres"}
    plans = Plans.from_json(record)
    assert plans.lineage("b") == ("b", "a", "3d_fullres")
    resolved = plans.configuration("b")
    assert (resolved.batch_size, resolved.previous_stage) == (4, "3d_fullres")
    assert resolved.data_identifier == "nnUNetPlans_3d_fullres"
    assert plans.to_json() == record  # the entries stay as written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inherits_from": "4d"}, "no configuration 4d"),
        ({"inherits_from": "x"}, "in a circle: x -> x"),
        ({"batch_size": 4}, "lacks 'data_identifier'"),
        ({"inherits_from": "2d", "batch_size": "many"}, "configuration x is not valid"),
        ({"inherits_from": "2d", "resampling_fn_data": "resample_torch"}, "resample_torch is not available"),
    ],
)
def test_broken_configurations_are_named(record: dict[str, Any], change: dict[str, Any], message: str) -> None:
    record["configurations"]["x"] = change
    with pytest.raises(PlansError, match=message):
        Plans.from_json(record).configuration("x")


def test_next_stage_may_be_a_name_or_a_list(record: dict[str, Any]) -> None:
    for written, read in (("a", ("a",)), (["a", "b"], ("a", "b"))):
        entry = record["configurations"]["2d"] | {"next_stage": written}
        configuration = Configuration.from_json("2d", entry)
        assert configuration.next_stages == read and configuration.to_json()["next_stage"] == written


def test_old_plans_are_converted(record: dict[str, Any]) -> None:
    """Method 3.13: releases up to about 2.2 described the network by single keys."""
    old = copy.deepcopy(record)
    entry = old["configurations"]["3d_fullres"]
    network = entry.pop("architecture")["arch_kwargs"]
    entry |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "n_conv_per_stage_encoder": network["n_conv_per_stage"],
        "n_conv_per_stage_decoder": network["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [3, 3, 3],
        "pool_op_kernel_sizes": network["strides"],
        "conv_kernel_sizes": network["kernel_sizes"],
        "unet_max_num_features": 320,
    }
    old["foreground_intensity_properties_by_modality"] = old.pop("foreground_intensity_properties_per_channel")
    read = Plans.from_json(old)
    assert read.configuration("3d_fullres") == Plans.from_json(record).configuration("3d_fullres")
    assert read.intensities == Plans.from_json(record).intensities


@pytest.mark.parametrize("content", [[], {}, {"configurations": {}}, {"dataset_name": "x", "configurations": 3}])
def test_what_is_no_plans_file_is_refused(content: Any) -> None:
    with pytest.raises(PlansError, match="plans: "):
        Plans.from_json(content)


@pytest.mark.parametrize("key", ["conv_op", "norm_op", "nonlin", "dropout_op"])
def test_names_in_a_file_are_looked_up_never_imported(record: dict[str, Any], key: str) -> None:
    record["configurations"]["2d"]["architecture"]["arch_kwargs"][key] = "os.system"
    with pytest.raises(PlansError, match=r"os\.system is not available"):
        Plans.from_json(record).configuration("2d")


def test_single_numbers_stand_for_every_stage() -> None:
    """v2 accepts a number where every stage has the same."""
    network = Architecture.from_json(
        {
            "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
            "arch_kwargs": {
                "n_stages": 3, "features_per_stage": [8, 16, 32], "kernel_sizes": [[3, 3]] * 3,
                "strides": [[1, 1], [2, 2], [2, 2]], "n_blocks_per_stage": 2, "n_conv_per_stage_decoder": 1,
            },
        }
    )  # fmt: skip
    assert network.kind == "residual_unet" and network.blocks_per_stage == (2, 2, 2)
    assert network.convs_per_stage_decoder == (1, 1) and network.dimensions == 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=7, max_size=7))
@settings(max_examples=20, deadline=None)
def test_intensities_round_trip_in_v2s_key_order(values: list[float]) -> None:
    statistics = IntensityStatistics(*values)
    record = statistics.to_json()
    assert list(record) == ["max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"]
    assert IntensityStatistics.from_json(record) == statistics


def test_slices_round_trip(record: dict[str, Any]) -> None:
    plans = Plans.from_json(record)
    preprocess = preprocess_slice(plans, "3d_fullres", LABELS, ("MRI",))
    train = train_slice(plans, "3d_fullres", LABELS)
    predict = predict_slice(plans, "3d_fullres", preprocess)
    assert PreprocessPlan.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess
    assert TrainPlan.from_json(json.loads(json.dumps(train.to_json()))) == train
    assert PredictPlan.from_json(json.loads(json.dumps(predict.to_json()))) == predict


def test_only_2d_keeps_the_spacing_of_slices(record: dict[str, Any]) -> None:
    plans = Plans.from_json(record)
    flat, full = (preprocess_slice(plans, name, LABELS, ("MRI",)) for name in ("2d", "3d_fullres"))
    assert flat.target_spacing_mm((3.5, 0.5, 0.7)) == (3.5, 1.0, 1.0)
    assert full.target_spacing_mm((3.5, 0.5, 0.7)) == (1.0, 1.0, 1.0)


def test_data_id_follows_the_preprocessing_and_nothing_else(record: dict[str, Any]) -> None:
    """Design, decision 3 and 5: a batch size preprocesses nothing again, a spacing does."""

    def data_id(change: dict[str, Any]) -> str:
        changed = copy.deepcopy(record)
        changed["configurations"]["x"] = {"inherits_from": "3d_fullres", **change}
        return preprocess_slice(Plans.from_json(changed), "x", LABELS, ("MRI",)).data_id

    same = preprocess_slice(Plans.from_json(record), "3d_fullres", LABELS, ("MRI",)).data_id
    assert same.startswith("3d_fullres-")
    assert data_id({"batch_size": 3}) == data_id({"previous_stage": "3d_lowres"}) == same
    assert data_id({"spacing": [2.0, 1.0, 1.0]}) != same


def test_a_cascade_sees_one_channel_a_foreground_label(record: dict[str, Any]) -> None:
    record["configurations"]["c"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    plans = Plans.from_json(record)
    assert train_slice(plans, "c", LABELS).num_input_channels == 3
    assert train_slice(plans, "3d_fullres", LABELS).num_input_channels == 1
