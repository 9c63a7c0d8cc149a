"""Labels, regions, cases and batches of a raw dataset (method 1.1, 1.2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.dataset import batch_of, cases_by_batch, find_cases, load_dataset
from segwright.core.errors import DatasetError
from segwright.core.labels import Labels, key_from_text, key_text

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
BRATS_ORIGINAL = {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}


def labels(entries: dict[str, Any], order: list[int] | None = None) -> Labels:
    return Labels.from_json({"labels": entries} | ({} if order is None else {"regions_class_order": order}))


def test_plain_labels() -> None:
    plain = labels({"background": 0, "b": 2, "a": 1})
    assert plain.all_labels == (0, 1, 2) and plain.foreground_labels == (1, 2) == plain.foreground_keys
    assert plain.num_outputs == 3 and not plain.has_regions
    assert plain.ignore_label is None and plain.name_of(2) == "b"


def test_regions_are_one_output_each_in_declared_order() -> None:
    """Method 1.2."""
    regions = labels(BRATS, [1, 2, 3])
    assert regions.has_regions and regions.num_outputs == 3
    assert regions.foreground_keys == ((1, 2, 3), (2, 3), 3) and regions.foreground_labels == (1, 2, 3)
    assert regions.name_of((2, 3)) == "core" and regions.name_of(3) == "enhancing"


def test_regions_may_leave_gaps_between_label_values() -> None:
    """v2 compares regions with label values and never takes a value for a position; only its optional check refuses."""
    regions = labels(BRATS_ORIGINAL, [2, 1, 4])
    assert regions.all_labels == (0, 1, 2, 4) == regions.declared_labels
    assert regions.foreground_labels == (1, 2, 4) and regions.num_outputs == 3
    assert regions.foreground_keys == ((1, 2, 4), (1, 4), (4,)) and regions.regions_class_order == (2, 1, 4)
    ignoring = labels(BRATS_ORIGINAL | {"ignore": 5}, [2, 1, 4])
    assert ignoring.declared_labels == (0, 1, 2, 4, 5) and ignoring.annotated_key == (-1, 0, 1, 2, 4)
    with pytest.raises(DatasetError, match="must be the highest label, 5"):
        labels(BRATS_ORIGINAL | {"ignore": 3}, [2, 1, 4])


@pytest.mark.parametrize(("highest", "dtype"), [(254, "uint8"), (255, "uint16"), (4000, "uint16")])
def test_label_maps_hold_every_value_of_regions_with_gaps(highest: int, dtype: str) -> None:
    entries = {"background": 0, "whole": [1, highest], "core": highest}
    assert labels(entries, [1, highest]).label_map_dtype == dtype
    assert labels({"background": 0, "whole": [1, 2], "core": 2}, [1, highest]).label_map_dtype == dtype


def test_values_of_plain_labels_may_be_texts() -> None:
    """v2 converts them to integers."""
    spelled = labels({"background": "0", "organ": "1", "7": ["02"], "ignore": 3})
    assert spelled == labels({"background": 0, "organ": 1, "7": [2], "ignore": 3})
    assert spelled.to_json()["labels"] == {"background": 0, "organ": 1, "7": [2], "ignore": 3}


def test_a_list_of_one_value_is_no_region_training() -> None:
    single = labels({"background": 0, "a": [1], "b": 2})
    assert not single.has_regions and single.num_outputs == 3


def test_the_ignore_label_is_no_output() -> None:
    ignoring = labels({"background": 0, "a": 1, "ignore": 2})
    assert ignoring.ignore_label == 2 and ignoring.num_outputs == 2
    assert ignoring.annotated_key == (-1, 0, 1)
    assert labels(BRATS | {"ignore": 4}, [1, 2, 3]).num_outputs == 3


@pytest.mark.parametrize(
    ("entries", "order", "message"),
    [
        ({}, None, "must be a mapping"),
        ({"a": 1}, None, "background must exist"),
        ({"background": 1, "a": 0}, None, "background must exist and be 0"),
        ({"background": 0, "a": 2}, None, r"missing: \[1\]"),
        ({"background": 0, "a": 1.5}, None, "must be an integer"),
        ({"background": 0, "a": True}, None, "must be an integer"),
        ({"background": 0, "a": []}, None, "empty list"),
        ({"background": 0, "a": 1, "ignore": 5}, None, "must be the highest label, 2"),
        ({"background": 0, "a": 1, "ignore": [2]}, None, "must be one integer"),
        ({"background": 0, "a": 1, "ignore": "2"}, None, "labels.ignore must be an integer .* not '2'"),
        ({"background": "0", "a": "one"}, None, "labels.a must be an integer .* not 'one'"),
        ({"background": "0", "a": "-1"}, None, "must be an integer"),
        ({"background": "0", "a": "2"}, None, r"missing: \[1\]"),
        ({"background": 0, "whole": [1, 2], "core": "2"}, [1, 2], "labels.core must be an integer .* not '2'"),
        ({"0": "background", "1": "liver"}, None, "the other way round"),
        ({"0": "0", "1": "17"}, None, "the other way round"),
        ({"background": 0, "1": "liver"}, None, "the other way round"),
        ({"background": 0, "whole": [1, 40_000], "core": 1}, [1, 1], "from 0 to 32767"),
        (BRATS, None, "one label value for each of the 3 regions"),
        (BRATS, [1, 2], "one label value for each of the 3 regions"),
    ],
)
def test_bad_labels_are_refused(entries: dict[str, Any], order: list[int] | None, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        labels(entries, order)


@pytest.mark.parametrize(
    ("entries", "order"),
    [({"background": 0, "a": 1, "ignore": 2}, None), (BRATS, [1, 2, 3]), (BRATS_ORIGINAL, [2, 1, 4])],
)
def test_labels_round_trip(entries: dict[str, Any], order: list[int] | None) -> None:
    original = labels(entries, order)
    assert Labels.from_json(original.to_json()) == original
    assert list(original.to_json()["labels"]) == list(entries)


@given(st.one_of(st.integers(0, 300), st.lists(st.integers(-1, 300), min_size=1, max_size=5).map(tuple)))
@settings(max_examples=40, deadline=None)
def test_keys_round_trip_as_text(key: Any) -> None:
    assert key_from_text(key_text(key)) == key


def test_key_text_is_v2s() -> None:
    assert key_text(3) == "3" and key_text((1, 2)) == "(1, 2)"


@pytest.mark.parametrize(("foreground", "dtype"), [(254, "uint8"), (255, "uint16")])
def test_label_map_dtype(foreground: int, dtype: str) -> None:
    entries = {"background": 0} | {str(value): value for value in range(1, foreground + 1)}
    assert labels(entries).label_map_dtype == dtype


@given(st.lists(st.text("abc_0123", min_size=1, max_size=8), unique=True, max_size=30), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_batches_are_a_partition_that_a_new_case_does_not_move(case_ids: list[str], batches: int) -> None:
    before = cases_by_batch(case_ids, batches)
    assert sorted(case for members in before.values() for case in members) == sorted(case_ids)
    after = cases_by_batch([*case_ids, "new"], batches)
    assert all(set(members) <= set(after[name]) for name, members in before.items())
    assert len({len(name) for name in before}) <= 1  # names sort as numbers


def test_batch_names_are_stable_across_runs_and_machines() -> None:
    assert [batch_of(case, 32) for case in ("hippocampus_001", "a", "ö")] == ["batch_17", "batch_03", "batch_11"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        for channel in ("0000", "0001"):
            (tmp_path / "imagesTr" / f"{name}_{channel}.nii.gz").touch()
        (tmp_path / "labelsTr" / f"{name}.nii.gz").touch()
    return tmp_path


def test_load_dataset_lists_cases_sorted(folder: Path) -> None:
    (folder / "imagesTr" / ".hidden_0000.nii.gz").touch()
    (folder / "imagesTr" / "no_channel.nii.gz").touch()
    (folder / "imagesTs" / "t_0000.nii.gz").touch()
    dataset = load_dataset(folder)
    assert [case.case_id for case in dataset.training] == ["a", "b"]
    assert [file.name for file in dataset.training[0].image_files] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [case.case_id for case in dataset.test] == ["t"] and dataset.test[0].label_file is None
    assert dataset.channel_names == ("T1", "T2") and dataset.reader is None and dataset.name == folder.name
    with pytest.raises(DatasetError, match="no training case c"):
        dataset.training_case("c")


def test_a_missing_label_is_left_to_inspection(folder: Path) -> None:
    (folder / "labelsTr" / "a.nii.gz").unlink()
    assert load_dataset(folder).training_case("a").label_file is None


def test_channel_names_are_ordered_by_number(folder: Path) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    facts["channel_names"] = {str(index): f"c{index}" for index in sorted(range(12), key=str)}
    (folder / "dataset.json").write_text(json.dumps(facts))
    assert load_dataset(folder).channel_names == tuple(f"c{index}" for index in range(12))


def test_listed_cases(folder: Path) -> None:
    """The optional key `dataset`; relative paths start at the dataset folder."""
    facts = json.loads((folder / "dataset.json").read_text())
    facts["dataset"] = {"x": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    facts["overwrite_image_reader_writer"] = "NibabelIO"
    (folder / "dataset.json").write_text(json.dumps(facts))
    dataset = load_dataset(folder)
    assert dataset.training_case("x").label_file == folder / "labelsTr/a.nii.gz" and dataset.reader == "NibabelIO"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", None, "`labels` is missing"),
        ("numTraining", None, "`numTraining` is missing"),
        ("file_ending", None, "`file_ending` is missing"),
        ("channel_names", None, "`channel_names` is missing"),
        ("channel_names", {"1": "T1"}, 'must be "0", "1"'),
        ("channel_names", {"1": "T1", "2": "T2"}, 'must be "0", "1"'),
        ("channel_names", ["T1"], "`channel_names` is missing"),
    ],
)
def test_dataset_json_problems_are_named(folder: Path, key: str, value: Any, message: str) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    facts.pop(key)
    (folder / "dataset.json").write_text(json.dumps(facts | ({} if value is None else {key: value})))
    with pytest.raises(DatasetError, match=message):
        load_dataset(folder)


def test_missing_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset(tmp_path / "elsewhere")
    (folder / "labelsTr" / "a.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr").rmdir()
    with pytest.raises(DatasetError, match="folder labelsTr is missing"):
        load_dataset(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        load_dataset(folder)


def test_find_cases_of_any_folder(tmp_path: Path) -> None:
    for name in ("a_0000.png", "a_0001.png", "a_b_0000.png", "a.png"):
        (tmp_path / name).touch()
    assert [(case.case_id, len(case.image_files)) for case in find_cases(tmp_path, ".png")] == [("a", 2), ("a_b", 1)]
