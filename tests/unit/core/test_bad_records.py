"""Records of the wrong form, found by fuzzing: one message that names the file, before anything is allocated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segwright.core.architecture import Architecture
from segwright.core.configfile import load_settings
from segwright.core.configvalues import from_text
from segwright.core.errors import DamagedFileError, DatasetError, PlansError, SettingsError, brief, some
from segwright.core.files import read_json
from segwright.core.labels import Labels
from segwright.core.plans import Plans
from segwright.core.slices import PredictPlan, PreprocessPlan, TrainPlan, read_slice
from tests.fuzz.project import parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 18446744073709551616}', "a number of 20 digits"),
        ('{"a": -9223372036854775809}', "a number of 20 digits"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
        ("[" * 100_000, "recursion|nested|Expecting"),
        ('{"content_sha256": "x", "a": ' + "[" * 100_000, "recursion|nested|Expecting"),
        ('{"a": 1', "not valid JSON"),
        ('{"a": ["\\ud800"]}', "surrogates not allowed"),  # nothing that holds it could be written again
    ],
)
def test_json_that_overflows_later(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DamagedFileError, match=words) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 500


def test_the_largest_numbers_are_read(tmp_path: Path) -> None:
    values = ["\U0001f600", 2**64 - 1, -(2**63), 12345678901234567890.5, 0.12345678901234567890123]
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert read_json(tmp_path / "a.json") == values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"background": 0, "a": 2**40}}, "from 0 to 32767"),  # all missing values were listed: gigabytes
        ({"labels": {"background": 0, "a": -1}}, "from 0 to 32767"),
        ({"labels": {"background": 0, "a": float("inf")}}, "from 0 to 32767"),
        ({"labels": {"background": 0, "a": 30_000}}, "must be consecutive"),
        ({"labels": {"background": 0, "a": {"b": 1}}}, "must be an integer"),
        ({"label_order": 5}, "label_order"),
        ({"label_order": [["background"], "a"]}, "label_order"),
        ({"regions_class_order": 5}, "regions_class_order must list"),
        ({"regions_class_order": ["x"]}, "regions_class_order must list"),
        ({"regions_class_order": [float("nan")]}, "regions_class_order must list"),
    ],
)
def test_labels(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        Labels.from_json({"labels": {"background": 0, "a": 1}, **change})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_stages", 10**9),
        ("n_stages", 0),
        ("features_per_stage", [10**9] * 3),
        ("features_per_stage", [4]),
        ("strides", [[1, 1, 1], [0, 2, 2], [2, 2, 2]]),
        ("strides", [[1, 1, 1], [2, 2], [2, 2, 2]]),
        ("strides", [[], [], []]),
        ("kernel_sizes", [[10**6] * 3] * 3),
        ("n_conv_per_stage", [10**6] * 3),
        ("n_conv_per_stage_decoder", [1] * 7),
        ("features_per_stage", [float("inf")] * 3),
    ],
)
def test_networks_nobody_can_build(key: str, value: Any) -> None:
    record = json.loads(json.dumps(parts().slices["3d_fullres.train.json"]["architecture"]))
    assert Architecture.from_json(record).n_stages == 3
    record["arch_kwargs"][key] = value
    plans = json.loads(json.dumps(parts().plans))
    plans["configurations"]["3d_fullres"]["architecture"] = record
    with pytest.raises(PlansError, match="configuration 3d_fullres is not valid"):
        Plans.from_json(plans).configuration("3d_fullres")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (PreprocessPlan, {"spacing_mm": [1.0, 0.0, 1.0]}),
        (PreprocessPlan, {"spacing_mm": ["1", 1, 1]}),
        (PreprocessPlan, {"spacing_mm": [1.0]}),
        (PreprocessPlan, {"transpose_forward": [0, 0, 1]}),
        (PreprocessPlan, {"transpose_forward": [0, 2, 1]}),  # transpose_backward does not undo it
        (PreprocessPlan, {"normalization_schemes": []}),
        (PreprocessPlan, {"use_mask_for_norm": ["no", "no"]}),
        (PreprocessPlan, {"order_of_steps": "both"}),
        (PreprocessPlan, {"intensities": [{"mean": "x"}, None]}),
        (TrainPlan, {"patch_size": [32, 32]}),
        (TrainPlan, {"patch_size": [10**9] * 3}),
        (TrainPlan, {"batch_size": 0}),
        (TrainPlan, {"previous_stage": 5}),
        (PredictPlan, {"patch_size": [0, 8, 8]}),
        (PredictPlan, {"next_stages": [1]}),
        (PredictPlan, {"preprocess": []}),
    ],
)
def test_slices(kind: Any, change: dict[str, Any], tmp_path: Path) -> None:
    name = kind.__name__.removesuffix("Plan").lower()
    record, path = parts().slices[f"3d_fullres.{name}.json"], tmp_path / f"{name}.json"
    path.write_text(json.dumps(record))
    assert read_slice(path, kind).to_json() == record
    path.write_text(json.dumps({**record, **change}))
    with pytest.raises(DamagedFileError, match=rf"{name}\.json: not a {kind.__name__}"):
        read_slice(path, kind)


@pytest.mark.parametrize("text", ["a: 2020-13-45", "a: " + "9" * 5000, "[" * 5000])
def test_yaml_that_the_parser_itself_trips_over(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"config\.yaml: not valid YAML"):
        load_settings(path)


@pytest.mark.parametrize("text", ["2020-13-45", "9" * 5000])
def test_text_that_spells_nothing_stays_text(text: str) -> None:
    assert from_text(text) in (text, float("inf"))


@pytest.mark.parametrize("value", [10**400, -(10**400), 2**70])
def test_settings_beyond_any_number(value: int) -> None:
    for section in ({"epochs": value}, {"learning_rate": value}):
        with pytest.raises(SettingsError, match=r"training\.\w+ is -?\d+\.\.\. but|training\.\w+ is \d+ but"):
            load_settings({"training": section})


def test_what_messages_show_is_never_long() -> None:
    assert brief("x" * 1000) == "x" * 117 + "..." and len(brief(list(range(1000)), 60)) == 60
    assert some(["c", "a", "b"]) == "a, b, c" and some("fedcba", 4) == "a, b, c, d and 2 more" and some([]) == ""
    assert brief({"a": 1}) == "{'a': 1}" and brief("a") == "a"
