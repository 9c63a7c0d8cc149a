"""Decathlon tasks become v2 datasets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segwright.conversion.msd import convert_msd
from segwright.core.dataset import load_dataset
from segwright.core.errors import DatasetError
from segwright.core.files import file_digest
from segwright.images.readers import read_image


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task with two channels in 4-D files, tilted axes, and the Decathlon's stray files."""
    folder = tmp_path / "Task7_Two"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, part in (("a_1", "imagesTr"), ("b", "imagesTr"), ("c", "imagesTs")):
        image = sitk.JoinSeries([sitk.GetImageFromArray(rng.integers(0, 999, (3, 4, 5)).astype(np.int16))] * 1)
        second = sitk.GetImageFromArray(rng.integers(0, 999, (3, 4, 5)).astype(np.int16))
        first = image[:, :, :, 0]
        for one in (first, second):
            one.SetSpacing((0.5, 0.75, 2.5))
            one.SetOrigin((1.0, -2.0, 3.5))
            one.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))
        sitk.WriteImage(sitk.JoinSeries([first, second]), str(folder / part / f"{name}.nii.gz"))
        if part == "imagesTr":
            label = sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8))
            label.CopyInformation(first)
            sitk.WriteImage(label, str(folder / "labelsTr" / f"{name}.nii.gz"))
    (folder / "imagesTr" / "._a_1.nii.gz").write_bytes(b"mac")
    (folder / "labelsTr" / "_b.nii.gz").write_bytes(b"mac")
    facts = {
        "name": "Two", "tensorImageSize": "4D", "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "Background", "1": "liver"}, "numTraining": 2, "numTest": 1, "training": [], "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def test_four_dimensional_images_are_split(task: Path, tmp_path: Path) -> None:
    folder = convert_msd(task, tmp_path / "raw")
    assert folder == tmp_path / "raw" / "Dataset007_Two"
    facts = json.loads((folder / "dataset.json").read_text())
    assert facts == {
        "name": "Two", "tensorImageSize": "4D", "numTest": 1, "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "liver": 1}, "numTraining": 2, "file_ending": ".nii.gz",
    }  # fmt: skip
    dataset = load_dataset(folder)
    assert [case.case_id for case in dataset.training] == ["a_1", "b"]
    assert [path.name for path in dataset.test[0].image_files] == ["c_0000.nii.gz", "c_0001.nii.gz"]
    image = read_image(dataset.training[0].image_files, "SimpleITKIO")
    source = sitk.ReadImage(str(task / "imagesTr" / "a_1.nii.gz"))
    np.testing.assert_array_equal(image.array_czyx, sitk.GetArrayFromImage(source))
    assert image.stored_dtype == "int16"
    assert image.geometry.spacing_zyx == (2.5, 0.75, 0.5)
    assert image.geometry.origin_xyz == (1.0, -2.0, 3.5)
    assert image.geometry.direction_xyz == (0, 1, 0, 1, 0, 0, 0, 0, 1)
    assert file_digest(folder / "labelsTr" / "b.nii.gz") == file_digest(task / "labelsTr" / "b.nii.gz")


def test_a_4d_file_with_one_channel_becomes_3d(task: Path, tmp_path: Path) -> None:
    facts = json.loads((task / "dataset.json").read_text())
    (task / "dataset.json").write_text(json.dumps({**facts, "modality": {"0": "T1"}}))
    for path in [*task.glob("images*/[!.]*.nii.gz")]:
        sitk.WriteImage(sitk.ReadImage(str(path))[:, :, :, :1], str(path))
    folder = convert_msd(task, tmp_path / "raw")
    image = sitk.ReadImage(str(folder / "imagesTr" / "b_0000.nii.gz"))
    assert image.GetSize() == (5, 4, 3)


def test_nothing_is_overwritten_and_an_id_is_taken_once(task: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    folder = convert_msd(task, raw, dataset_id=12)
    assert folder.name == "Dataset012_Two"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(DatasetError, match=r"Dataset012_Two: has the id"):
        convert_msd(task, raw, dataset_id=12)
    other = task.rename(task.with_name("Task12_Other"))
    with pytest.raises(DatasetError, match=r"Dataset012_Two: has the id of Dataset012_Other already"):
        convert_msd(other, raw)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in raw.iterdir()] == ["Dataset012_Two"]


def test_a_bad_task_leaves_nothing_behind(task: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    image = task / "imagesTr" / "b.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"b\.nii\.gz"):
        convert_msd(task, raw)
    image.write_bytes(whole)
    (task / "labelsTr" / "a_1.nii.gz").rename(task / "labelsTr" / "z.nii.gz")
    with pytest.raises(DatasetError, match=r"a_1\.nii\.gz, z\.nii\.gz"):
        convert_msd(task, raw)
    assert not raw.exists() or not list(raw.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": {"0": "T1"}}, r"2 channels but `modality` names 1"),
        ({"modality": {}}, r"`modality` is missing"),
        ({"labels": ["background"]}, r"`labels` must map"),
        ({"labels": {"1": "liver"}}, r"no 0"),
        ({"labels": {"0": "b", "1": "x", "2": "x"}}, r"same name"),
    ],
)
def test_contradictions_are_named(task: Path, tmp_path: Path, change: dict, message: str) -> None:
    facts = json.loads((task / "dataset.json").read_text())
    (task / "dataset.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(DatasetError, match=message):
        convert_msd(task, tmp_path / "raw")


def test_a_folder_that_is_no_task_is_refused(task: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"liver: there is no dataset\.json"):
        convert_msd(tmp_path / "liver", tmp_path / "raw")
    other = task.rename(task.with_name("liver"))
    with pytest.raises(DatasetError, match="liver: not named like Task04_Hippocampus; give a name: --name Dataset004"):
        convert_msd(other, tmp_path / "raw")
    assert convert_msd(other, tmp_path / "raw", name="Dataset007_Liver").name == "Dataset007_Liver"
    other.rename(task)
    with pytest.raises(DatasetError, match="from 1 to 999"):
        convert_msd(task, tmp_path / "raw", dataset_id=1000)
    (task / "dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        convert_msd(task, tmp_path / "raw")


def test_the_real_hippocampus_task_equals_the_known_dataset(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "msd_Task04_Hippocampus_small" / "Task04_Hippocampus"
    known = load_dataset(shared_data / "hippocampus_small" / "Dataset004_Hippocampus")
    folder = convert_msd(source, tmp_path)
    dataset = load_dataset(folder)
    assert folder.name == known.name == "Dataset004_Hippocampus"
    assert (dataset.labels, dataset.num_training, dataset.file_ending) == (known.labels, 20, ".nii.gz")
    assert [case.case_id for case in dataset.training] == [case.case_id for case in known.training]
    for ours, theirs in zip(dataset.training, known.training, strict=True):
        assert file_digest(ours.image_files[0]) == file_digest(theirs.image_files[0])
    assert len(dataset.test) == 3
    shutil.rmtree(folder)
