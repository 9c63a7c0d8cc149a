from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import read_json, write_json
from segwright.core.labels import Labels
from segwright.images.readers import read_label, write_label
from segwright.inference.probabilities import ProbabilityFile
from segwright.selection.components import Rule
from segwright.selection.finish import finish_test
from segwright.selection.folders import ensemble_folders, postprocess_folder
from tests.unit.label_maps import grid

READER = "SimpleITKIO"
LABELS = Labels((("background", 0), ("a", 1), ("b", 2)))
SHAPE = (4, 6, 7)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    write_json(tmp_path / "postprocessing.json", {"rules": [Rule((1,)).to_json()]})
    return tmp_path / "postprocessing.json"


@pytest.fixture
def no_rules(tmp_path: Path) -> Path:
    write_json(tmp_path / "none.json", {"rules": []})
    return tmp_path / "none.json"


def two_islands() -> np.ndarray:
    label_zyx = np.zeros(SHAPE, np.uint8)
    label_zyx[1, 1:3, 1:3] = 1
    label_zyx[2, 4, 5] = 1
    label_zyx[3, 4, 5] = 2
    return label_zyx


def certain(label_zyx: np.ndarray, certainty: float) -> np.ndarray:
    """Probabilities whose highest class is the label."""
    array = np.full((3, *label_zyx.shape), (1 - certainty) / 2, np.float32)
    np.put_along_axis(array, label_zyx[None].astype(int), certainty, axis=0)
    return array


def test_one_member_is_postprocessed(make_fold: Callable, rules: Path, tmp_path: Path) -> None:
    manifest = make_fold("test", {"A": two_islands(), "B": np.zeros(SHAPE, np.uint8)})
    output = tmp_path / "final"
    finish_test([[manifest]], rules, ".nii.gz", READER, output)
    result = read_label(output / "A.nii.gz", READER)
    expected = two_islands()
    expected[2, 4, 5] = 0
    np.testing.assert_array_equal(result.array_zyx, expected)
    assert result.geometry.spacing_zyx == (2.0, 1.0, 1.0)
    record = read_json(output / "manifest.json")
    assert record["cases"]["A"]["file"] == "A.nii.gz"
    assert set(record["cases"]["B"]) == {"file", "digest", "inputs"}


def test_other_rules_make_everything_again_and_equal_ones_nothing(
    make_fold: Callable, rules: Path, no_rules: Path, tmp_path: Path
) -> None:
    manifest, output = make_fold("test", {"A": two_islands()}), tmp_path / "final"
    finish_test([[manifest]], rules, ".nii.gz", READER, output)
    first = (output / "A.nii.gz").stat().st_mtime_ns
    finish_test([[manifest]], rules, ".nii.gz", READER, output)
    assert (output / "A.nii.gz").stat().st_mtime_ns == first
    finish_test([[manifest]], no_rules, ".nii.gz", READER, output)
    np.testing.assert_array_equal(read_label(output / "A.nii.gz", READER).array_zyx, two_islands())


def test_members_are_averaged_before_postprocessing(make_probabilities: Callable, rules: Path, tmp_path: Path) -> None:
    """The surer member wins each voxel; test manifests name probabilities under their own key."""
    empty = np.zeros(SHAPE, np.uint8)
    batches = []
    for configuration, label_zyx, certainty in (("2d", two_islands(), 0.9), ("3d_fullres", empty, 0.6)):
        manifest = make_probabilities(configuration, 0, LABELS, {"A": certain(label_zyx, certainty)})
        entry = read_json(manifest)["cases"]["A"]
        batch = manifest.with_name("batch_0.json")
        write_json(batch, {"version": 1, "cases": {"A": {"file": "x", "digest": "y", "probabilities": entry}}})
        batches.append([batch])
    output = tmp_path / "final"
    finish_test(batches, rules, ".nii.gz", READER, output, save_probabilities=True)
    expected = two_islands()
    expected[2, 4, 5] = expected[3] = 0  # a false island, and the border that was cropped away
    np.testing.assert_array_equal(read_label(output / "A.nii.gz", READER).array_zyx, expected)
    with np.load(output / "A.npz", allow_pickle=False) as archive:
        saved_czyx = archive["probabilities"]
    assert saved_czyx.shape == (3, *SHAPE)
    mean = (certain(two_islands(), 0.9) + certain(empty, 0.6)) / np.float32(2)
    np.testing.assert_allclose(saved_czyx[:, 1:-1, 1:-1, 1:-1], mean[:, 1:-1, 1:-1, 1:-1], atol=1e-6)
    assert (saved_czyx[0, 0] == 1).all() and (saved_czyx[1:, 0] == 0).all()


@pytest.mark.parametrize("saved", [False, True])
def test_members_are_read_once(
    make_probabilities: Callable,
    no_rules: Path,
    tmp_path: Path,
    saved: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where their mean is saved, which the label map is then made of."""
    read: list[tuple[str, int, int]] = []
    score_planes = ProbabilityFile.score_planes

    def noted(self: ProbabilityFile, first: int, last: int) -> np.ndarray:
        read.append((self.name, first, last))
        return score_planes(self, first, last)

    monkeypatch.setattr(ProbabilityFile, "score_planes", noted)
    members = []
    for configuration in ("2d", "3d_fullres"):
        manifest = make_probabilities(configuration, 0, LABELS, {"A": certain(two_islands(), 0.9)})
        entry = read_json(manifest)["cases"]["A"]
        write_json(manifest, {"version": 1, "cases": {"A": {"file": "x", "digest": "y", "probabilities": entry}}})
        members.append([manifest])
    finish_test(members, no_rules, ".nii.gz", READER, tmp_path, save_probabilities=saved)
    assert len({name for name, _, _ in read}) == len(read) == 2
    assert (tmp_path / "A.npz").exists() == saved


def save_folder(folder: Path, write_map: Callable, arrays: dict[str, np.ndarray]) -> Path:
    """What `predict --save-probabilities` and nnU-Net v2 leave: an .npz and a label map a case."""
    for case_id, array in arrays.items():
        write_map(folder / f"{case_id}.nii.gz", array.argmax(axis=0).astype(np.uint8))
        np.savez_compressed(folder / f"{case_id}.npz", probabilities=array)
    return folder


@pytest.fixture
def dataset_json(tmp_path: Path) -> Path:
    write_json(tmp_path / "dataset.json", {**LABELS.to_json(), "file_ending": ".nii.gz"}, sort_keys=False)
    return tmp_path / "dataset.json"


def test_ensemble_folders(write_map: Callable, dataset_json: Path, tmp_path: Path) -> None:
    other = np.roll(two_islands(), 2, axis=1)
    arrays = [certain(two_islands(), 0.9), certain(other, 0.5)]
    folders = [save_folder(tmp_path / str(i), write_map, {"A": array}) for i, array in enumerate(arrays)]
    output = tmp_path / "out"
    ensemble_folders(folders, output, dataset_json, save_probabilities=True)
    mean = (arrays[0] + arrays[1]) / np.float32(2)
    np.testing.assert_array_equal(read_label(output / "A.nii.gz", READER).array_zyx, mean.argmax(axis=0))
    with np.load(output / "A.npz") as archive:
        np.testing.assert_allclose(archive["probabilities"], mean, atol=1e-7)


def test_ensemble_folders_refuses_what_does_not_fit(write_map: Callable, dataset_json: Path, tmp_path: Path) -> None:
    arrays = {"A": certain(two_islands(), 0.9)}
    first = save_folder(tmp_path / "1", write_map, arrays)
    second = save_folder(tmp_path / "2", write_map, {**arrays, "B": arrays["A"]})
    with pytest.raises(DatasetError, match="B is not in both"):
        ensemble_folders([first, second], tmp_path / "out", dataset_json)
    third = save_folder(tmp_path / "3", write_map, {"A": arrays["A"][:2]})
    with pytest.raises(DatasetError, match=r"A\.npz.*\(2, 4, 6, 7\)"):
        ensemble_folders([first, third], tmp_path / "out", dataset_json)
    with pytest.raises(DatasetError, match="at least two"):
        ensemble_folders([first], tmp_path / "out", dataset_json)
    (tmp_path / "4").mkdir()
    with pytest.raises(DatasetError, match=r"4: there is no \.npz file; predict with --save-probabilities"):
        ensemble_folders([tmp_path / "4", first], tmp_path / "out", dataset_json)
    with pytest.raises(DatasetError, match="also a folder of inputs"):
        ensemble_folders([first, second], first, dataset_json)


def test_pickles_are_refused(write_map: Callable, dataset_json: Path, tmp_path: Path) -> None:
    folders = [save_folder(tmp_path / name, write_map, {"A": certain(two_islands(), 0.9)}) for name in "12"]
    np.savez(folders[1] / "A.npz", probabilities=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedFileError, match=r"A\.npz.*not an \.npz"):
        ensemble_folders(folders, tmp_path / "out", dataset_json)


def npz(path: Path, header: dict[str, object], content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    """An archive whose array says anything of itself."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("probabilities.npy", stream.getvalue() + content)


def test_what_an_npz_claims_is_compared_before_memory_is_asked_for(
    write_map: Callable, dataset_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [save_folder(tmp_path / name, write_map, {"A": certain(two_islands(), 0.9)}) for name in "12"]
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("no array is to be read"))
    header = {"descr": "<f4", "fortran_order": False}
    for claim in ((1 << 40, 1 << 20), (3, 4, 6, 1 << 50)):
        npz(folders[1] / "A.npz", {**header, "shape": claim}, bytes(100))
        with pytest.raises(DatasetError, match=rf"A\.npz: probabilities of shape .*{claim[-1]}\), but the labels"):
            ensemble_folders(folders, tmp_path / "out", dataset_json)
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_damaged_npz_are_named(write_map: Callable, dataset_json: Path, tmp_path: Path) -> None:
    folders = [save_folder(tmp_path / name, write_map, {"A": certain(two_islands(), 0.9)}) for name in "12"]
    path = folders[1] / "A.npz"
    shape = np.load(path)["probabilities"].shape
    whole = path.read_bytes()
    start = whole.index(b"probabilities.npy") + 30

    def refused() -> None:
        with pytest.raises(DamagedFileError, match=r"A\.npz: not an \.npz file with `probabilities` \("):
            ensemble_folders(folders, tmp_path / "out", dataset_json)

    for content in (b"", b"no zip", whole[:-30], whole[:start] + b"\xff" * 20 + whole[start + 20 :]):
        path.write_bytes(content)
        refused()
    for descr in ("<f4", "<i4", "|O", "<U9"):  # of the first one the numbers are missing
        npz(path, {"descr": descr, "fortran_order": False, "shape": shape}, bytes(100))
        refused()


def test_ensembles_of_stacks_keep_the_spacing_of_their_label_maps(tmp_path: Path) -> None:
    """In TIFF it stands beside a label map, under its name, whatever that ends in."""
    write_json(tmp_path / "dataset.json", {**LABELS.to_json(), "file_ending": ".tif"}, sort_keys=False)
    grids = {f"case_000{n}": replace(grid(SHAPE), spacing_zyx=(3.0 + n, 1.0, 1.5)) for n in (1, 2)}
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        for case_id, geometry in grids.items():
            write_label(folder / f"{case_id}.tif", two_islands(), geometry, "Tiff3DIO")
            np.savez_compressed(folder / f"{case_id}.npz", probabilities=certain(two_islands(), 0.9))
    ensemble_folders(folders, tmp_path / "out", tmp_path / "dataset.json")
    for case_id, geometry in grids.items():
        label = read_label(tmp_path / "out" / f"{case_id}.tif", "Tiff3DIO")
        assert label.geometry == geometry
        np.testing.assert_array_equal(label.array_zyx, two_islands())


def test_postprocess_folder(write_map: Callable, rules: Path, dataset_json: Path, tmp_path: Path) -> None:
    write_map(tmp_path / "in" / "A.nii.gz", two_islands())
    postprocess_folder(tmp_path / "in", rules, tmp_path / "out", dataset_json)
    assert (read_label(tmp_path / "out" / "A.nii.gz", READER).array_zyx == 1).sum() == 4
    with pytest.raises(DatasetError, match="also a folder of inputs"):
        postprocess_folder(tmp_path / "in", rules, tmp_path / "in", dataset_json)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no file ending"):
        postprocess_folder(tmp_path / "empty", rules, tmp_path / "out", dataset_json)
