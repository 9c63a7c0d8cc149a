"""Every defect gives its own problem, naming case and file; all are reported at once (method 1.5)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.dataset import load_dataset
from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import read_json
from segwright.images.readers import write_image, write_label
from segwright.inspection.batch import inspect_batch
from segwright.inspection.checks import Checks, collect_checks, read_checks, require_valid, write_checks
from segwright.inspection.dataset import inspect_dataset
from segwright.inspection.names import clashing_names, unusable_reason
from segwright.inspection.records import read_batch

from .conftest import SHAPE, RawDataset, grid, random_image, two_labels


def _found(checks: Checks) -> list[tuple[str, str, str, str]]:
    return [(p.severity, p.code, p.case, p.file) for p in checks.problems]


def test_a_sound_dataset_has_no_problems(raw: RawDataset) -> None:
    checks = raw.inspect()
    assert checks.problems == () and checks.cases == ("a", "b", "c") and checks.reader == "SimpleITKIO"
    require_valid(checks)


def test_stacks_of_cases_whose_names_end_in_four_digits(tmp_path: Path) -> None:
    """The spacing of a label map stands in a file of its whole name, as in v2."""
    raw = RawDataset(tmp_path / "Dataset002_Stacks", tmp_path / "data")
    for number, name in enumerate(("case_0001", "case_0002")):
        geometry = grid(spacing_zyx=(3.0 + number, 1.0, 1.5))
        for folder in ("imagesTr", "labelsTr"):
            (raw.folder / folder).mkdir(parents=True, exist_ok=True)
        write_image(raw.folder / "imagesTr" / f"{name}_0000.tif", random_image(number), geometry, "Tiff3DIO")
        write_label(raw.folder / "labelsTr" / f"{name}.tif", two_labels(), geometry, "Tiff3DIO")
    raw.describe(file_ending=".tif", numTraining=2)
    checks = raw.inspect()
    assert (checks.problems, checks.reader) == ((), "Tiff3DIO")
    (raw.folder / "labelsTr" / "case_0002.json").write_text('{"spacing": [3.0, 1.0, 1.5]}')
    assert _found(raw.inspect()) == [("error", "grid_differs", "case_0002", "labelsTr/case_0002.tif")]
    (raw.folder / "labelsTr" / "case_0002.json").unlink()
    assert ("warning", "spacing_missing", "case_0002", "labelsTr/case_0002.json") in _found(raw.inspect())


def _not_whole(raw: RawDataset) -> None:
    labels = two_labels().astype(np.float32)
    labels[0, 0, 0] = 0.5
    raw.image("b", labels, folder="labelsTr")


def _image_with(value: float) -> Callable[[RawDataset], None]:
    def spoil(raw: RawDataset) -> None:
        image = random_image(1).astype(np.float32)
        image[1, 2, 3] = value
        raw.image("b_0000", image)

    return spoil


def _two_channels(raw: RawDataset) -> None:
    raw.image("b_0001", random_image(7))


def _label_beyond(raw: RawDataset) -> None:
    labels = two_labels()
    labels[0, 0, 0] = 7
    raw.label("b", labels)


def _other_spacing(raw: RawDataset) -> None:
    raw.label("b", two_labels(), spacing_zyx=(3.0, 1.0, 1.6))


def _misnumbered(raw: RawDataset) -> None:
    (raw.folder / IMAGE).rename(raw.folder / "imagesTr" / "b_0001.nrrd")


def _cut(raw: RawDataset) -> None:
    path = raw.folder / "imagesTr" / "b_0000.nrrd"
    path.write_bytes(path.read_bytes()[:-40])


IMAGE, LABEL = "imagesTr/b_0000.nrrd", "labelsTr/b.nrrd"
DEFECTS: list[tuple[str, Callable[[RawDataset], Any], str, str, str]] = [
    ("NaN", _image_with(np.nan), "not_finite", IMAGE, "1 NaN voxels (the first at z, y, x = 1, 2, 3)"),
    ("infinity", _image_with(-np.inf), "not_finite", IMAGE, "1 infinite voxels"),
    ("constant", lambda raw: raw.image("b_0000", np.full(SHAPE, 5, np.int16)), "constant", IMAGE, "every voxel is 5"),
    ("truncated", _cut, "image_unreadable", IMAGE, "truncated"),
    ("no label", lambda raw: (raw.folder / LABEL).unlink(), "label_missing", LABEL, "missing"),
    ("float label", _not_whole, "label_unreadable", LABEL, "whole numbers"),
    ("undeclared", _label_beyond, "label_undeclared", LABEL, "7 (1 voxels); declared are 0, 1, 2"),
    ("shape", lambda raw: raw.label("b", two_labels((5, 6, 5))), "grid_differs", LABEL, "(4, 6, 5) against (5, 6, 5)"),
    ("spacing", _other_spacing, "grid_differs", LABEL, "spacing (3, 1, 1.5) mm against (3, 1, 1.6) mm"),
    ("channels", _two_channels, "channel_count", "", "2 channels"),
    ("numbers", _misnumbered, "channel_numbers", "", "channel 0000 is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "code", "file", "words"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_each_defect_is_an_error_of_its_case(
    raw: RawDataset, spoil: Callable[[RawDataset], Any], code: str, file: str, words: str
) -> None:
    spoil(raw)
    checks = raw.inspect()
    assert _found(checks) == [("error", code, "b", file)]
    assert words in checks.problems[0].message and checks.problems[0].remedy
    with pytest.raises(DatasetError) as caught:
        require_valid(checks)
    assert f"b: {file}: " in str(caught.value) if file else "b: " in str(caught.value)
    assert str(raw.folder) not in "".join(problem.text for problem in checks.problems)


def test_a_blank_image_is_only_told_where_nothing_is_labelled(raw: RawDataset) -> None:
    """As a blank slice among 2-D images, which v2 trains with; with a label it is an error (above)."""
    raw.image("b_0000", np.zeros(SHAPE, np.int16))
    raw.label("b", np.zeros(SHAPE, np.uint8))
    checks = raw.inspect()
    assert _found(checks) == [("warning", "constant", "b", IMAGE), ("warning", "label_empty", "b", LABEL)]
    require_valid(checks)


def test_all_errors_come_in_one_message(raw: RawDataset) -> None:
    _cut(raw)
    (raw.folder / "labelsTr" / "a.nrrd").unlink()
    raw.describe(numTraining=4)
    with pytest.raises(DatasetError) as caught:
        require_valid(raw.inspect())
    text = str(caught.value)
    assert "3 errors" in text
    for part in ("labelsTr/a.nrrd: the label map is missing", "imagesTr/b_0000.nrrd", "numTraining is 4"):
        assert part in text


def _listed(*names: str) -> dict[str, Any]:
    """What dataset.json says of case b alone, with these files as its channels."""
    return {
        "channel_names": {str(index): f"T{index + 1}" for index in range(len(names))},
        "numTraining": 1,
        "dataset": {"b": {"images": [f"{name}.nrrd" for name in names], "label": LABEL}},
    }


@pytest.mark.parametrize(
    "names",
    [("img/scan_0012",), ("t1/pat_0007", "t2/pat_0007"), ("img/b_0001", "img/b_0000"), ("img/b_0003", "img/other")],
)
def test_names_of_listed_files_are_free(raw: RawDataset, names: tuple[str, ...]) -> None:
    """v2 takes the files in the order in which dataset.json lists them and looks at no name."""
    raw.describe(**_listed(*names))
    for seed, (folder, stem) in enumerate(name.split("/") for name in names):
        (raw.folder / folder).mkdir(exist_ok=True)
        raw.image(stem, random_image(seed), folder=folder)
    assert raw.inspect().problems == ()
    assert read_batch(raw.batch_file).cases["b"].image_files == tuple(f"{name}.nrrd" for name in names)


def test_names_count_again_when_files_are_no_longer_listed(raw: RawDataset) -> None:
    _misnumbered(raw)
    raw.describe(**_listed("imagesTr/b_0001"))
    assert raw.inspect().problems == ()
    raw.describe()
    assert _found(raw.inspect()) == [("error", "channel_numbers", "b", "")]


def test_a_file_listed_twice_is_two_channels(raw: RawDataset) -> None:
    """To be normalised in two ways."""
    raw.describe(**_listed("imagesTr/b_0000", "imagesTr/b_0000"))
    inspect_dataset(raw.folder, raw.output)
    assert _found(read_checks(raw.output / "checks.json")) == [("warning", "channel_repeated", "b", IMAGE)]
    fingerprint = read_json(raw.output / "dataset_fingerprint.json")["foreground_intensity_properties_per_channel"]
    assert list(fingerprint) == ["0", "1"] and fingerprint["0"] == fingerprint["1"]


def test_listed_files_that_are_not_there_are_named_as_listed(raw: RawDataset) -> None:
    raw.describe(**_listed("img/gone"))
    checks = raw.inspect()
    assert _found(checks) == [("error", "image_unreadable", "b", "img/gone.nrrd")]
    raw.describe(numTraining=1, dataset={"b": {"images": [IMAGE], "label": "masks/gone.nrrd"}})
    checks = raw.inspect()
    assert _found(checks) == [("error", "label_unreadable", "b", "masks/gone.nrrd")]
    assert checks.problems[0].message == "the file does not exist"


@pytest.mark.parametrize(("spoil", "code"), [(_image_with(np.nan), "not_finite"), (_cut, "image_unreadable")])
def test_a_bad_file_listed_twice_is_told_once(raw: RawDataset, spoil: Callable[[RawDataset], None], code: str) -> None:
    spoil(raw)
    raw.describe(**_listed("imagesTr/b_0000", "imagesTr/b_0000"))
    assert _found(raw.inspect()) == [("error", code, "b", IMAGE), ("warning", "channel_repeated", "b", IMAGE)]


def test_gaps_between_the_values_of_regions_are_undeclared(raw: RawDataset) -> None:
    labels = {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}
    raw.describe(labels=labels, regions_class_order=[2, 1, 4])
    label_zyx = two_labels()
    label_zyx[1, 1, 1] = 4
    for name in "abc":
        raw.label(name, label_zyx)
    assert raw.inspect().problems == ()
    label_zyx[1, 1, 2] = 3
    raw.label("b", label_zyx)
    checks = raw.inspect()
    assert _found(checks) == [("error", "label_undeclared", "b", LABEL)]
    assert "3 (1 voxels); declared are 0, 1, 2, 4" in checks.problems[0].message


def test_channels_are_compared_with_each_other(raw: RawDataset) -> None:
    raw.describe(channel_names={"0": "T1", "1": "T2"})
    for seed, name in enumerate("abc"):
        raw.image(f"{name}_0001", random_image(seed + 50))
    raw.image("a_0001", random_image(9, (4, 6, 7)))
    raw.image("b_0001", np.zeros(SHAPE, np.int16))
    raw.image("c_0001", random_image(9), origin_xyz=(0.0, 5.0, 0.0))
    raw.describe(channel_names={"0": "T1", "1": "T2"}, numTraining=4)
    for name in ("d_0000", "d_0001"):
        raw.image(name, random_image(3))
    raw.label("d", two_labels())
    assert _found(raw.inspect()) == [
        ("error", "grid_differs", "a", "imagesTr/a_0001.nrrd"),
        ("warning", "constant", "b", "imagesTr/b_0001.nrrd"),  # one blank channel of two only warns
        ("warning", "header_differs", "c", "imagesTr/c_0001.nrrd"),
        ("warning", "channel_repeated", "d", "imagesTr/d_0001.nrrd"),
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"spacing_zyx": (3.000001, 1.0, 1.5)}, None),  # within v2's tolerance: nothing is said
        ({"spacing_zyx": (3.001, 1.0, 1.5)}, "warning"),  # a rounded header
        ({"origin_xyz": (0.0, 0.0, 2.0)}, "warning"),  # v2 only warns
        ({"direction_xyz": (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)}, "warning"),
        ({"spacing_zyx": (3.1, 1.0, 1.5)}, "error"),
    ],
)
def test_three_classes_of_header_differences(raw: RawDataset, change: dict[str, Any], expected: str | None) -> None:
    raw.label("b", two_labels(), **change)
    assert [problem.severity for problem in raw.inspect().problems] == ([expected] if expected else [])


def test_warnings_stop_nothing(raw: RawDataset, caplog: pytest.LogCaptureFixture) -> None:
    raw.label("a", np.zeros(SHAPE, np.uint8))
    raw.describe(labels={"background": 0, "organ": 1, "tumour": 2, "cyst": 3})
    (raw.folder / "imagesTr" / "x.nrrd").write_bytes(b"no channel number")
    (raw.folder / "labelsTr" / "y.nrrd").write_bytes(b"no image")
    checks = raw.inspect()
    assert _found(checks) == [
        ("warning", "label_unseen", "", "dataset.json"),
        ("warning", "file_unused", "", "imagesTr/x.nrrd"),
        ("warning", "label_unused", "", "labelsTr/y.nrrd"),
        ("warning", "label_empty", "a", "labelsTr/a.nrrd"),
    ]
    require_valid(checks)
    assert "label 3 (cyst) is in no training case" in caplog.text


def test_copies_are_found_even_if_saved_anew(raw: RawDataset) -> None:
    raw.image("c_0000", random_image(0), origin_xyz=(9.0, 0.0, 0.0))  # the image of a, with another header
    raw.label("c", two_labels(), origin_xyz=(9.0, 0.0, 0.0))
    shutil.copy(raw.folder / "imagesTr" / "b_0000.nrrd", raw.folder / "imagesTs" / "new_0000.nrrd")
    checks = raw.inspect(test=True)
    assert _found(checks) == [
        ("warning", "duplicate", "c", "imagesTr/c_0000.nrrd"),
        ("warning", "duplicate_test", "new", "imagesTs/new_0000.nrrd"),
    ]
    assert checks.duplicates == (("a", "c"),) and checks.duplicate_of == {"a": "a", "c": "a"}


def test_bad_test_images_only_warn(raw: RawDataset) -> None:
    (raw.folder / "imagesTs" / "new_0000.nrrd").write_bytes(b"garbage")
    checks = raw.inspect(test=True)
    assert _found(checks) == [("warning", "image_unreadable", "new", "imagesTs/new_0000.nrrd")]
    require_valid(checks)


def test_labels_outside_the_image_content(raw: RawDataset) -> None:
    image, label = np.zeros(SHAPE, np.int16), two_labels()
    image[:3, :3, :3] = random_image(8)[:3, :3, :3]
    label[3, 5, 4] = 1
    raw.image("b_0000", image)
    raw.label("b", label)
    problem = raw.inspect().problems[0]
    assert (problem.severity, problem.code) == ("warning", "label_outside")
    assert problem.message.startswith("5 labelled voxels")  # the far voxel, and four with y = 3


@pytest.mark.parametrize(
    ("name", "usable"),
    [("case_01", True), ("Fall 3 ä", True), ("../up", False), ("a/b", False), ("a\\b", False), (".hidden", False),
     ("-rf", False), ("a\nb", False), ("", False), ("x" * 181, False)],
)  # fmt: skip
def test_names_that_are_no_file_names(name: str, usable: bool) -> None:
    assert (unusable_reason(name) == "") is usable


def test_names_that_clash() -> None:
    assert clashing_names(["Case1", "case1", "case2", "caf\u00e9", "cafe\u0301"]) == [
        ("Case1", "case1"),
        ("cafe\u0301", "caf\u00e9"),
    ]


def test_names_that_clash_are_an_error_of_training_cases_only(raw: RawDataset) -> None:
    for name in ("T", "t"):
        raw.image(f"{name}_0000", random_image(8), folder="imagesTs")
    assert _found(raw.inspect()) == [("warning", "name_clash", "T", "")]
    require_valid(raw.inspect())
    raw.image("A_0000", random_image(77))
    raw.label("A", two_labels())
    raw.describe(numTraining=4)
    assert _found(raw.inspect()) == [("error", "name_clash", "A", ""), ("warning", "name_clash", "T", "")]


def test_an_unsafe_name_is_an_error_and_nothing_is_written_for_it(raw: RawDataset) -> None:
    listed = {name: {"images": [f"imagesTr/{name}_0000.nrrd"], "label": f"labelsTr/{name}.nrrd"} for name in "abc"}
    raw.describe(dataset={"../../a": listed["a"], "b": listed["b"], "c": listed["c"]})
    assert _found(raw.inspect()) == [("error", "name_unsafe", "../../a", "")]
    assert sorted(path.name[0] for path in raw.output.rglob("*.npz")) == ["b", "c"]


def test_batches_of_different_readers_say_what_to_do(raw: RawDataset) -> None:
    """The first image chooses the reader, and when it changes, no batch but its own is inspected again."""
    batches = []
    for case_ids, reader in (("a", "SimpleITKIO"), ("bc", "SimpleITKIOWithReorient")):
        raw.describe(overwrite_image_reader_writer=reader)
        batches.append(raw.batch_file.with_name(f"batch_{case_ids}.json"))
        inspect_batch(load_dataset(raw.folder), list(case_ids), batches[-1], raw.batch_file.parent)
    words = r"\(SimpleITKIO, SimpleITKIOWithReorient\).*name one of them in dataset.json, `overwrite_image_reader_w"
    with pytest.raises(DatasetError, match=words):
        collect_checks(batches, load_dataset(raw.folder))


def test_tables_are_written_and_read_again(raw: RawDataset) -> None:
    _cut(raw)
    with pytest.raises(DatasetError, match="1 error"):
        inspect_dataset(raw.folder, raw.output, batches=2)
    lines = (raw.output / "checks.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["severity", "code", "case", "file", "message", "remedy"]
    assert lines[1].split("\t")[:4] == ["error", "image_unreadable", "b", "imagesTr/b_0000.nrrd"]
    checks = read_checks(raw.output / "checks.json")
    write_checks(checks, raw.output / "again.json", raw.output / "again.tsv")
    assert (raw.output / "again.json").read_bytes() == (raw.output / "checks.json").read_bytes()
    (raw.output / "again.json").write_text("[]")
    with pytest.raises(DamagedFileError):
        read_checks(raw.output / "again.json")


def test_a_case_without_record_is_noticed(raw: RawDataset) -> None:
    raw.inspect()
    raw.image("d_0000", random_image(4))
    with pytest.raises(DatasetError, match="case d was not inspected"):
        collect_checks([raw.batch_file], load_dataset(raw.folder))


BROKEN = [
    ("Dataset901_shape_mismatch", "hippocampus_292", "shape (33, 52, 38) against (30, 52, 38)"),
    ("Dataset902_label_value_out_of_range", "hippocampus_049", "3 (1820 voxels); declared are 0, 1, 2"),
    ("Dataset903_image_nan", "hippocampus_036", "48 NaN voxels"),
    ("Dataset904_truncated_gzip", "hippocampus_035", "truncated"),
    ("Dataset905_spacing_mismatch", "hippocampus_143", "spacing (1, 1, 1) mm against (1.5, 1, 1) mm"),
    ("Dataset906_image_without_label", "hippocampus_220", "the label map is missing"),
    ("Dataset907_image_4d", "hippocampus_092", "2 channels (it is 4-D or in colour)"),
    ("Dataset908_all_zero_image", "hippocampus_319", "every voxel is 0"),
]


@pytest.mark.parametrize(("name", "case", "words"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken_datasets(shared_data: Path, tmp_path: Path, name: str, case: str, words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        inspect_dataset(shared_data / "broken" / name, tmp_path)
    assert words in str(caught.value) and "1 error" in str(caught.value)
    checks = read_checks(tmp_path / "checks.json")
    assert [problem.case for problem in checks.errors] == [case]


def test_image_and_label_of_different_cases(shared_data: Path, raw: RawDataset) -> None:
    """The pair as its source repository holds it: an image without label map, a label map without image."""
    source = shared_data / "broken" / "udacity_as_found"
    for path in raw.folder.rglob("*.nrrd"):
        path.unlink()
    raw.describe(file_ending=".nii.gz", numTraining=2)
    shutil.copy(source / "images" / "hippocampus_118.nii.gz", raw.folder / "imagesTr" / "hippocampus_118_0000.nii.gz")
    shutil.copy(source / "labels" / "hippocampus_010.nii.gz", raw.folder / "labelsTr")
    assert _found(raw.inspect()) == [
        ("error", "case_count", "", "dataset.json"),
        ("error", "label_missing", "hippocampus_118", "labelsTr/hippocampus_118.nii.gz"),
        ("warning", "label_unused", "", "labelsTr/hippocampus_010.nii.gz"),
    ]
