"""v1 tasks become v2 datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segwright.conversion.v1 import convert_v1
from segwright.core.dataset import load_dataset
from segwright.core.errors import DatasetError

FILES = (
    "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz",
    "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "imagesTs/c_0000.nii.gz", "imagesTs/c_0001.nii.gz", "labelsTs/c.nii.gz",
)  # fmt: skip


@pytest.fixture
def task(tmp_path: Path) -> Path:
    folder = tmp_path / "Task500_Kidney"
    for name in (*FILES, "imagesTr/.DS_Store", "imagesTr/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    facts = {
        "name": "Kidney", "licence": "CC0", "tensorImageSize": "4D", "modality": {"0": "CT", "1": "PET"},
        "labels": {"0": "background", "1": "kidney", "2": "tumour"}, "numTraining": 99, "numTest": 0,
        "training": [{"image": "x", "label": "y"}], "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def test_files_are_copied_and_dataset_json_is_translated(task: Path, tmp_path: Path) -> None:
    folder = convert_v1(task, tmp_path / "raw")
    assert folder == tmp_path / "raw" / "Dataset500_Kidney"
    copied = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert copied == sorted((*FILES, "dataset.json"))
    assert all((folder / name).read_bytes() == name.encode() for name in FILES)
    assert json.loads((folder / "dataset.json").read_text()) == {
        "name": "Kidney", "licence": "CC0", "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "kidney": 1, "tumour": 2}, "numTraining": 2, "file_ending": ".nii.gz",
    }  # fmt: skip
    assert len(load_dataset(folder).training) == 2


def test_another_name_can_be_chosen_but_never_one_that_is_taken(task: Path, tmp_path: Path) -> None:
    folder = convert_v1(task, tmp_path, name="Dataset017_Other")
    assert folder.name == "Dataset017_Other"
    with pytest.raises(DatasetError, match=r"Dataset017_Other: has the id of Dataset017_New already"):
        convert_v1(task, tmp_path, name="Dataset017_New")
    for wrong in ("Kidney", "Dataset17_K", "Dataset017_../../x"):
        with pytest.raises(DatasetError, match="is no dataset name"):
            convert_v1(task, tmp_path, name=wrong)


def test_missing_parts_are_named_and_nothing_is_left_behind(task: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (task / "imagesTr" / "b_0001.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"b: the number of channel files is not that of `modality`, 2"):
        convert_v1(task, raw)
    (task / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(DatasetError, match="no label for a;"):
        convert_v1(task, raw)
    (task / "dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        convert_v1(task, raw)
    assert not raw.exists()
