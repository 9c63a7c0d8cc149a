"""Models of nnU-Net v2 in a zip: what is taken, what is left in it, and what makes it refused."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json
from segwright.sharing.model import open_model
from segwright.sharing.nnunet_v2.import_model import import_model
from tests.unit.sharing.nnunet_v2 import made
from tests.unit.sharing.nnunet_v2.importing import assert_refused, imported


def test_a_zip_gives_the_same_model(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres")
    made.crossval(folder / "crossval_results_folds_0_1", rules=[1])
    (folder / "fold_0" / "validation").mkdir()
    (folder / "fold_0" / "validation" / "case_1.nii.gz").write_bytes(b"predicted")
    (folder / "fold_0" / "progress.png").write_bytes(b"drawn")
    from_folder = imported(root, tmp_path)
    from_zip = import_model(made.zipped(root, tmp_path / "model.zip"), tmp_path / "second")
    files = sorted(path.relative_to(from_zip) for path in from_zip.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(from_folder) for path in from_folder.rglob("*") if path.is_file())
    assert all((from_zip / name).read_bytes() == (from_folder / name).read_bytes() for name in files)


def test_a_zip_of_many_equal_images_is_imported(root: Path, tmp_path: Path) -> None:
    """The fingerprint of 2-D images of one size repeats itself, and so do label maps that are not compressed."""
    folder = made.model_folder(root, "3d_fullres", ("0",))
    shapes, spacings = [[1, 512, 512]] * 12_000, [[999.0, 1.0, 1.0]] * 12_000
    record = {"shapes_after_crop": shapes, "spacings": spacings}
    (folder / "dataset_fingerprint.json").write_text(json.dumps(record, indent=4))
    (folder / "fold_0" / "validation").mkdir()
    (folder / "fold_0" / "validation" / "a.nii").write_bytes(bytes(33 << 20))
    archive = made.zipped(root, tmp_path / "model.zip")
    with zipfile.ZipFile(archive) as packed:
        large = [entry for entry in packed.infolist() if entry.file_size > 100 * entry.compress_size]
    assert [Path(entry.filename).name for entry in large] == ["dataset_fingerprint.json", "a.nii"]
    assert min(entry.file_size for entry in large) > 1 << 20
    with open_model(imported(archive, tmp_path)) as model:
        assert model.members == ("3d_fullres",)


def test_what_people_and_systems_add_to_a_zip_is_left_out(root: Path, tmp_path: Path) -> None:
    for name in ("2d", "3d_fullres"):
        made.crossval(made.model_folder(root, name) / "crossval_results_folds_0_1", rules=[1])
    made.information(root, ["2d", "3d_fullres"])
    ensemble = "ensemble___nnUNetTrainer__nnUNetPlans__2d___nnUNetTrainer__nnUNetPlans__3d_fullres___0_1"
    made.crossval(root / "ensembles" / ensemble, 0.9, [2])
    expected = imported(made.zipped(root, tmp_path / "model.zip"), tmp_path)
    folder = root / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    names = [
        "LICENSE", "README.md", ".DS_Store", ".git/con figuration", "ensembles/.DS_Store",
        f"ensembles/{ensemble}/müller (1).nii.gz", f"ensembles/{ensemble}/plans.json",
        f"{folder.name}/fold_0/network_architecture", f"{folder.name}/fold_0/validation/Case A.nii.gz",
        f"{folder.name}/fold_0/validation/case a.nii.gz", f"{folder.name}/fold_0/validation/größe 10%.npz",
        f"{folder.name}/crossval_results_folds_0_1/(x), y.nii.gz",
        f"{folder.name}/predicted_next_stage/3d_cascade_fullres/Ä b.npz",
    ]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"of no use here")
    with zipfile.ZipFile(made.zipped(root, tmp_path / "other.zip"), "a") as packed:
        for name in ("__MACOSX/", "__MACOSX/Dataset007_Made/", f"{made.DATASET}/{folder.name}/fold_0/validation/"):
            packed.writestr(zipfile.ZipInfo(name), b"")
        packed.writestr(f"__MACOSX/{made.DATASET}/._plans.json", b"\x00\x05\x16\x07")
    found = import_model(tmp_path / "other.zip", tmp_path / "second")
    assert (found / "model.json").read_bytes() == (expected / "model.json").read_bytes()
    assert read_json(found / "postprocessing.json") == read_json(expected / "postprocessing.json")


def _link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


LEAVES = "its name is absolute, leaves the folder, or holds c"


@pytest.mark.parametrize(
    ("names", "content", "words"),
    [
        (["../evil.json"], b"{}", LEAVES), (["/tmp/evil.json"], b"{}", LEAVES),
        (["D/../../evil.json"], b"{}", LEAVES), ([_link("D/plans.json")], b"/etc/passwd", "it is a link"),
        (["D/plans.json", "D/plans.json"], b"{}", "it clashes with"), (["D/run.sh"], b"#!", "no such file belongs"),
        (["D/bomb.json"], b"0" * (64 << 20), "it would extract to .* times its size"), (["D/a case.nii"], b"", LEAVES),
        (["D/fold_0/validation/../../../evil.json"], b"", LEAVES),
        (["D/fold_0/validation/a\x1b[2J.nii"], b"", LEAVES), (["D/fold_0/validation/a\\b.nii"], b"", LEAVES),
        (["__MACOSX/../../evil.json"], b"", LEAVES), (["/.DS_Store"], b"", LEAVES),
        ([_link("D/.git")], b"/etc", "it is a link"), ([".DS_Store", ".DS_Store"], b"", "it clashes with"),
        (["D/README", "D/readme/plans.json"], b"{}", "a folder of its path is also a file"),
    ],
    ids=[
        "above", "absolute", "inside and above", "link", "twice", "foreign", "bomb", "a name elsewhere",
        "above a case", "escape sequence", "backslash", "above an extra", "absolute extra", "linked extra",
        "extra twice", "extra as a folder",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_unsafe_zip_is_refused(names: list[Any], content: bytes, words: str, root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_fullres", ("0",))
    archive = made.zipped(root, tmp_path / "model.zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(name, content, zipfile.ZIP_DEFLATED)
    assert_refused(archive, tmp_path, f"model.zip: refused to open this archive: entry .*: {words}")
    assert not Path("/tmp/evil.json").exists()


def test_damage_inside_a_zip_is_named_by_the_zip(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0",))
    (folder / "plans.json").write_text("{")
    assert_refused(
        made.zipped(root, tmp_path / "model.zip"), tmp_path, r"model\.zip/Dataset007_Made/.*/plans.json: not valid JSON"
    )
    (folder / "dataset.json").unlink()
    (folder / "plans.json").write_text(json.dumps(made.plans_record()))
    assert_refused(root, tmp_path, "dataset.json: the file does not exist", DamagedFileError)
