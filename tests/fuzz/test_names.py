"""Names of cases, labels, channels, datasets and pipelines: accepted, or refused with a message; never a wrong path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segwright.core.configfile import load_settings
from segwright.core.dataset import load_dataset
from segwright.core.errors import DatasetError, SettingsError
from segwright.core.labels import Labels
from segwright.experiment import Experiment
from segwright.inspection.dataset import inspect_dataset

ACCEPTED_CASES = (
    "case one", "M\u00fcller", "Mu\u0308ller", "\u75c5\u4f8b", "O'Brien", 'say "hi"', "a.b.c", "x" * 180, "$HOME",
    "`ls`", "%s%n", "a;b", "a&b", "a|b", "a*b?", "~root", "a#b", "a=b", "0", "batch_0", "nul", "a b ",
    "..b", "_0000", "[x]",
)  # fmt: skip
REFUSED_CASES = {
    "..": None, ".hidden": None, "-rf": "starts with a dot or a hyphen", "a\nb": "control character",
    "a\tb": "control character", "\x1b[31mred": "control character", "a\\b": "slash",
    "x" * 200: "longer than 180 bytes", "\u5f71" * 61: "longer than 180 bytes", "a\u2028b": "control character",
    "{case}": "brace", "a}b": "brace", "a<b>c": "angle brackets",
}  # fmt: skip
"""Case id -> words of the message; None: the file is hidden and so no case at all."""


def make_dataset(folder: Path, cases: tuple[str, ...], **facts: object) -> Path:
    rng = np.random.default_rng(1)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in cases:
        image = rng.normal(0, 50, (3, 5, 4)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / "imagesTr" / "made.nii"))
        (folder / "imagesTr" / "made.nii").rename(folder / "imagesTr" / f"{case}_0000.nii")
        sitk.WriteImage(sitk.GetImageFromArray((image > 0).astype(np.uint8)), str(folder / "labelsTr" / "made.nii"))
        (folder / "labelsTr" / "made.nii").rename(folder / "labelsTr" / f"{case}.nii")
    record = {
        "channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}, "numTraining": len(cases),
        "file_ending": ".nii", "overwrite_image_reader_writer": "NibabelIO", **facts,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(record))
    return folder


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_accepted_case_names(tmp_path: Path) -> None:
    """Side files lie in the one folder they belong to, under the case's own name."""
    names = tuple(name for name in ACCEPTED_CASES if name != "Mu\u0308ller" and not name.startswith("."))
    raw = make_dataset(tmp_path / "raw" / "Dataset001_X", names)
    before = everything_below(tmp_path)
    inspect_dataset(raw, tmp_path / "out", batches=1)
    cases = json.loads((tmp_path / "out" / "inspection" / "batch_0.json").read_text())["cases"]
    assert sorted(cases) == sorted(names)
    made = everything_below(tmp_path) - before
    side_files = {path for path in made if path.endswith(".npz")}
    assert {path.rsplit("/", 1)[1].rsplit(".", 2)[0] for path in side_files} == set(names)
    assert all(path == "out" or path.startswith("out/") for path in made)


@pytest.mark.parametrize("name", REFUSED_CASES, ids=ascii)
def test_refused_case_names(name: str, tmp_path: Path) -> None:
    words = REFUSED_CASES[name]
    raw = make_dataset(tmp_path / "raw" / "Dataset001_X", ("sound", name))
    with pytest.raises(DatasetError) as caught:
        inspect_dataset(raw, tmp_path / "out", batches=1)
    message = str(caught.value)
    assert (words or "numTraining is 2") in message
    assert "rename" in message or words is None
    assert not [path for path in everything_below(tmp_path) if not path.startswith(("raw", "out"))]
    assert not list((tmp_path / "out").rglob(f"*{name[:5]}*.npz"))


@pytest.mark.parametrize("where", ["imagesTr/{x}_0000.nii", "imagesTs/a}_0000.nii", "imagesTs/<a>_0000.nii", "folder"])
def test_braces_are_refused_before_the_workflow_takes_them_for_wildcards(where: str, tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / ("{sample}" if where == "folder" else "x") / "Dataset001_X", ("a",))
    if where != "folder":
        (raw / where).parent.mkdir(exist_ok=True)
        (raw / where).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"the name holds a brace or") as caught:
        Experiment.load({"datasets": {"Dataset001_X": {"path": str(raw)}}})
    assert ("{sample}" if where == "folder" else where) in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Case", "case"), ("M\u00fcller", "Mu\u0308ller"), ("stra\u00dfe", "STRASSE"), ("\u00e9_1", "E\u0301_1")],
)
def test_names_that_are_one_file_elsewhere(first: str, second: str, tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "Dataset001_X", (first, second))
    if len(list((raw / "imagesTr").iterdir())) < 2:
        pytest.skip("this file system takes the two names for one")
    with pytest.raises(DatasetError, match="one and the same on many file systems; rename all but one"):
        inspect_dataset(raw, tmp_path / "out", batches=1)


NAMES = {
    "organ": True, "Gro\u00dfes Organ (links), 50 %": True, 'a "b" <c> | d': True, "$(rm -rf)": True,
    "../x": True, "-1": True, "\u75c5": True, "x" * 200: True, "e\u0301": True,
    "": False, "   ": False, "x" * 201: False, "a\nb": False, "a\x00b": False, "\x1b[0m": False,
}  # fmt: skip
"""Names of labels and channels, which never become paths, and whether they are accepted."""


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_label_and_channel_names(name: str, tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "Dataset001_X", ("a",))
    facts = json.loads((raw / "dataset.json").read_text())
    for kind, change in (
        ("label", {"labels": {"background": 0, name: 1}}),
        ("channel", {"channel_names": {"0": name}}),
    ):
        (raw / "dataset.json").write_text(json.dumps({**facts, **change}))
        if NAMES[name]:
            dataset = load_dataset(raw)
            assert name in (*dataset.channel_names, *dict(dataset.labels.entries))
            assert Labels.from_json(dataset.labels.to_json()) == dataset.labels
        else:
            with pytest.raises(DatasetError, match=rf"dataset\.json: the {kind} name"):
                load_dataset(raw)


@pytest.mark.parametrize("value", [5, None, ["a"], {"a": 1}, True])
def test_channel_names_are_texts(value: object, tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "Dataset001_X", ("a",), channel_names={"0": value})
    with pytest.raises(DatasetError, match=r"the channel name .* must be a text"):
        load_dataset(raw)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("Dataset004_Hippocampus", True), ("my-data.v2", True), ("x" * 200, True),
        ("..", False), (".", False), (".hidden", False), ("-rf", False), ("a/b", False), ("a b", False), ("a\n", False),
        ("\u00e4", False), ("x" * 300, False), ("", False), ("logs", False), ("benchmarks", False),
    ],
)  # fmt: skip
def test_dataset_names_become_folders(name: str, accepted: bool) -> None:
    config = {"datasets": {name: {"path": "/x"}}}
    if accepted:
        assert list(load_settings(config).datasets) == [name]
    else:
        with pytest.raises(SettingsError, match=r"datasets\."):
            load_settings(config)


@pytest.mark.parametrize("names", [("Abc", "abc"), ("a", "A")])
def test_dataset_and_pipeline_names_that_are_one_folder_elsewhere(names: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="one and the same"):
        load_settings({"datasets": {name: {"path": "/x"} for name in names}})
    with pytest.raises(SettingsError, match="one and the same"):
        load_settings({"pipelines": {name: {} for name in names}})


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("wide", True), ("x" * 100, True), ("data", False), ("Data", False), ("a-b", False), ("a/b", False), ("..", False),
     ("\u00e4", False), ("x" * 300, False), ("a b", False), ("", False)],
)  # fmt: skip
def test_pipeline_names_become_folders(name: str, accepted: bool) -> None:
    config = {"pipelines": {name: {}}}
    if accepted:
        assert name in load_settings(config).pipelines
    else:
        with pytest.raises(SettingsError, match=r"pipelines\."):
            load_settings(config)


@pytest.mark.parametrize(
    "ending", ["", "nii", "/etc", "../x", ".nii/..", ".", ".n ii", "." + "x" * 300, 5, None, [".nii"]]
)
def test_file_endings(ending: object, tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "Dataset001_X", ("a",), file_ending=ending)
    with pytest.raises(DatasetError, match="`file_ending` must be an ending"):
        load_dataset(raw)
