"""Batches of raw cases: which there are, their files, and how a file that was replaced is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segwright.batches import Batches
from segwright.core.dataset import Case, find_cases
from segwright.core.files import write_bytes, write_json


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Seven training cases, the last without its label, and three test cases, of two channels; none is ever opened."""
    images = [f"imagesTr/c{index}" for index in range(7)] + [f"imagesTs/t{index}" for index in range(3)]
    files = [f"{image}_{channel:04d}" for image in images for channel in range(2)]
    for name in [*files, *(f"labelsTr/c{index}" for index in range(6))]:
        write_bytes(tmp_path / f"{name}.nii.gz", b"")
    return tmp_path


def of_training(raw: Path, number: int = 1, file_ending: str = ".nii.gz") -> Batches:
    return Batches.of(find_cases(raw / "imagesTr", file_ending, raw / "labelsTr"), number)


def of_test(raw: Path, number: int = 1) -> Batches:
    return Batches.of(find_cases(raw / "imagesTs", ".nii.gz"), number)


@pytest.mark.parametrize("number", [1, 2, 32])
def test_every_case_is_in_one_batch(raw: Path, number: int) -> None:
    batches = of_training(raw, number)
    cases = [case_id for batch in batches.names for case_id in batches.case_ids(batch)]
    assert sorted(cases) == [f"c{index}" for index in range(7)] and len(batches.names) <= number
    assert all(batches.case_ids(batch) for batch in batches.names)  # none is empty
    assert Batches.of((), number).names == []


def test_files_of_a_batch_are_its_images_and_labels(raw: Path) -> None:
    files = of_training(raw).files("batch_0")
    assert len(files) == 7 * 2 + 6
    assert {Path(file).relative_to(raw).parts[0] for file in files} == {"imagesTr", "labelsTr"}
    assert len(of_test(raw).files("batch_0")) == 3 * 2
    by_case = of_training(raw).files_by_case("batch_0")
    assert [file for case in by_case for file in case] == files and [len(case) for case in by_case] == [3] * 6 + [2]
    assert [len(case) for case in of_test(raw).files_by_case("batch_0")] == [2] * 3


@pytest.mark.parametrize("replaced", ["imagesTr/c0_0001.nii.gz", "labelsTr/c0.nii.gz", "imagesTs/t0_0000.nii.gz"])
def test_a_file_replaced_by_an_older_one_is_noticed(raw: Path, replaced: str) -> None:
    def written() -> tuple[str, str]:
        return of_training(raw).written("batch_0"), of_test(raw).written("batch_0")

    before = written()
    assert written() == before
    os.utime(raw / replaced, (1e9, 1e9))
    older = written()
    assert [now != then for now, then in zip(older, before, strict=True)] == ["Tr" in replaced, "Ts" in replaced]
    write_bytes(raw / replaced, b"other")
    os.utime(raw / replaced, (1e9, 1e9))
    assert written() != older


@pytest.mark.parametrize("ending", [".tif", ".TIFF"])
def test_the_spacing_of_a_stack_that_changes_is_noticed(raw: Path, ending: str) -> None:
    """It stands in a file that is no input of any rule, because it may be missing."""
    for path in ("imagesTr/c0_0000", "labelsTr/c0"):
        write_bytes(raw / f"{path}{ending}", b"")
    found = [of_training(raw, file_ending=ending).written("batch_0")]
    for path in ("imagesTr/c0.json", "labelsTr/c0.json"):
        write_json(raw / path, {"spacing": [1, 1, 2]})
        found.append(of_training(raw, file_ending=ending).written("batch_0"))
    assert len(set(found)) == 3


def test_files_that_are_not_there_are_left_to_the_inspection(raw: Path) -> None:
    (raw / "imagesTr" / "c7_0000.nii.gz").symlink_to(raw / "nowhere.nii.gz")
    (raw / "imagesTs" / "t9_0000.nii.gz").mkdir()
    assert "c7" in of_training(raw).case_ids("batch_0") and "t9" in of_test(raw).case_ids("batch_0")
    assert len(of_training(raw).files("batch_0")) == 7 * 2 + 6
    assert len(of_test(raw).files("batch_0")) == 3 * 2
    image, label = raw / "imagesTr" / "c0_0000.nii.gz", raw / "labelsTr" / "c0.nii.gz"
    listed = Batches.of([Case("a", (image, raw / "gone.nii.gz"), label)], 1)
    assert listed.files("batch_0") == [str(image), str(label)]
    assert listed.written("batch_0") == Batches.of([Case("a", (image,), label)], 1).written("batch_0")
