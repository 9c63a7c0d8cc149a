from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segwright.core.errors import DatasetError, ModelError, StorageError
from segwright.core.files import file_digest, read_json, write_json
from segwright.core.geometry import Geometry
from segwright.core.slices import PredictPlan
from segwright.images.readers import read_label, write_image
from segwright.inference.finished import note_finished, write_manifest
from segwright.sharing.model import PackagedModel, open_model
from segwright.sharing.package import package_model
from segwright.sharing.use import chain_of, input_cases, predict_with_model, require_free_output

SHAPE = (10, 11, 12)


def write_case(folder: Path, case_id: str, seed: int, channels: int = 1) -> list[Path]:
    geometry = Geometry(SHAPE, (1.0, 1.0, 1.0), (5.0, 6.0, 7.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    files = []
    for channel in range(channels):
        image_zyx = np.random.default_rng(seed + channel).normal(100, 20, SHAPE).astype(np.float32)
        files.append(folder / f"{case_id}_{channel:04d}.nii.gz")
        write_image(files[-1], image_zyx, geometry, "SimpleITKIO")
    return files


def random_weights(plan: PredictPlan, fold: int) -> bytes:
    import torch

    from segwright.networks.build import build_network
    from segwright.networks.weights import save_weights

    torch.manual_seed(fold)
    network = build_network(plan.architecture, plan.num_input_channels, plan.labels.num_outputs, False)
    path = Path(f"{plan.configuration}-{fold}.safetensors")
    save_weights(path, network, {})
    return path.read_bytes()


@pytest.fixture
def model(results: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A cascade with untrained networks and a zip of it."""
    monkeypatch.chdir(tmp_path)
    return package_model(tmp_path / "model", tmp_path / "model.zip", **results(weights=random_weights))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for seed, case_id in enumerate(("A", "B")):
        write_case(folder, case_id, seed)
    return folder


def test_predicts_a_folder_with_all_stages_and_postprocessing(
    model: PackagedModel, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    files = predict_with_model(model, images, output, workers=1)
    assert list(files) == ["A", "B"]
    label = read_label(output / "A.nii.gz", "SimpleITKIO")
    assert label.array_zyx.shape == SHAPE and label.geometry.origin_xyz == (5.0, 6.0, 7.0)
    _, count = ndimage.label(label.array_zyx == 1, np.ones((3, 3, 3)))
    sizes = np.bincount(ndimage.label(label.array_zyx == 1, np.ones((3, 3, 3)))[0].ravel())[1:]
    assert count <= 1 or len(set(sizes)) == 1, "only components of maximum size stay"
    manifest = read_json(output / "manifest.json")["cases"]
    assert manifest["B"] == {"file": "B.nii.gz", "digest": file_digest(output / "B.nii.gz")}
    assert (output / "dataset.json").is_file() and (output / "plans.json").is_file()
    with open_model(tmp_path / "model.zip") as from_zip:
        predict_with_model(from_zip, sorted(images.iterdir()), tmp_path / "zip", workers=1)
    assert (tmp_path / "zip" / "A.nii.gz").read_bytes() == (output / "A.nii.gz").read_bytes()


def test_finished_images_are_kept_only_if_everything_fits(model: PackagedModel, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predict_with_model(model, images, output, folds=["0"], workers=1)

    def times() -> dict[str, int]:
        return {name: (output / f"{name}.nii.gz").stat().st_mtime_ns for name in "AB"}

    first = times()
    predict_with_model(model, images, output, folds=["0"], workers=1)
    assert times() == first
    (output / "A.nii.gz").write_bytes(b"half a file")
    write_case(images, "B", 77)
    predict_with_model(model, images, output, folds=["0"], workers=1)
    assert all(times()[name] != first[name] for name in "AB")
    read_label(output / "A.nii.gz", "SimpleITKIO")
    second = times()
    predict_with_model(model, images, output, folds=["1"], workers=1)
    assert all(times()[name] != second[name] for name in "AB"), "other folds are another model"


def test_probabilities_on_the_raw_grid(model: PackagedModel, images: Path, tmp_path: Path) -> None:
    predict_with_model(model, images / "A_0000.nii.gz", tmp_path / "out", save_probabilities=True, workers=1)
    with np.load(tmp_path / "out" / "A.npz", allow_pickle=False) as archive:
        probabilities_czyx = archive["probabilities"]
    assert probabilities_czyx.shape == (3, *SHAPE)
    np.testing.assert_allclose(probabilities_czyx.sum(axis=0), 1, atol=1e-5)
    assert not (tmp_path / "out" / "B.nii.gz").exists()


def test_images_unlike_the_training_s_are_predicted_with_a_warning(
    model: PackagedModel, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    geometry = Geometry((1, 11, 12), (1.0, 1.0, 1.0), (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    write_image(images / "B_0000.nii.gz", np.ones((1, 11, 12), np.float32), geometry, "SimpleITKIO")
    write_image(images / "C_0000.nii.gz", np.ones((1, 11, 12), np.float32), geometry, "SimpleITKIO")
    files = predict_with_model(model, images, tmp_path / "out", mirroring=False, workers=1)
    assert all(path.is_file() for path in files.values()) and list(files) == ["A", "B", "C"]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition(" (")[0] for text in warned] == [f"case {name}: is a single slice" for name in "BC"]


@pytest.fixture
def plain_model(results: Callable, tmp_path: Path) -> PackagedModel:
    """Enough for what happens before a network is built."""
    return package_model(tmp_path / "plain", None, **results(("3d_fullres",)))


def test_unknown_folds_are_named(plain_model: PackagedModel, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has the folds 0, 1, not 7"):
        predict_with_model(plain_model, images, tmp_path / "out", folds=["0", "7"])


def test_plugins_must_be_given_with_equal_content(results: Callable, images: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("raise SystemExit('must not be imported')\n")
    arguments = results(("3d_fullres",), plugins={"mine.py": file_digest(plugin)}, network="mine")
    model = package_model(tmp_path / "model", None, **arguments)
    with pytest.raises(ModelError, match=r"--plugin mine\.py"):
        predict_with_model(model, images, tmp_path / "out")
    plugin.write_text("print('altered')\n")
    with pytest.raises(ModelError, match=r"plugin mine\.py: is not the file"):
        predict_with_model(model, images, tmp_path / "out", plugins=[plugin])
    with pytest.raises(ModelError, match="does not exist"):
        predict_with_model(model, images, tmp_path / "out", plugins=[tmp_path / "none.py"])
    assert not (tmp_path / "out").exists()


def test_wrong_inputs_are_named(plain_model: PackagedModel, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        input_cases(plain_model, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"<case>_0000\.nii\.gz.*_0000 MRI"):
        input_cases(plain_model, tmp_path / "empty")
    write_case(tmp_path / "two", "A", 0, channels=2)
    with pytest.raises(DatasetError, match=r"case A: has the channels 0000, 0001, needs 0000"):
        input_cases(plain_model, tmp_path / "two")
    with pytest.raises(DatasetError, match=r"none_0000\.nii\.gz"):
        input_cases(plain_model, [tmp_path / "two" / "none_0000.nii.gz"])
    write_case(tmp_path / "other", "A", 0)
    with pytest.raises(DatasetError, match="case A: is in"):
        input_cases(plain_model, [tmp_path / folder / "A_0000.nii.gz" for folder in ("two", "other")])


def test_previous_stages_run_first(plain_model: PackagedModel, results: Callable, tmp_path: Path) -> None:
    assert chain_of(plain_model, "3d_fullres") == ("3d_fullres",)
    cascade = package_model(tmp_path / "cascade", None, **results())
    assert chain_of(cascade, "3d_cascade") == ("3d_lowres", "3d_cascade")


def test_what_predictions_did_not_make_is_never_overwritten(
    plain_model: PackagedModel, images: Path, tmp_path: Path
) -> None:
    cases, manual, raw = input_cases(plain_model, images), tmp_path / "labelsTr", tmp_path / "raw"
    require_free_output(plain_model, cases, manual)
    manual.mkdir()
    (manual / "C.nii.gz").touch()
    (manual / "A.npz").touch()
    require_free_output(plain_model, cases, manual)
    with pytest.raises(StorageError, match=r"labelsTr: holds A\.npz, which"):
        require_free_output(plain_model, cases, manual, save_probabilities=True)
    (manual / "B.nii.gz").write_text("drawn by hand")
    with pytest.raises(StorageError, match=r"labelsTr: holds B\.nii\.gz, which .*; choose another output folder"):
        predict_with_model(plain_model, images, manual)
    write_json(raw / "dataset.json", {"numTraining": 2})
    with pytest.raises(StorageError, match=r"raw: holds dataset\.json, which"):
        predict_with_model(plain_model, images, raw)
    assert [path.name for path in raw.iterdir()] == ["dataset.json"] and (manual / "B.nii.gz").stat().st_size == 13
    note_finished(manual, "images", "B", "made of", {"label": manual / "B.nii.gz"})
    require_free_output(plain_model, cases, manual)
    write_manifest(raw / "manifest.json", raw, {})
    require_free_output(plain_model, cases, raw)


def test_a_prediction_killed_before_its_first_note_can_go_on(
    plain_model: PackagedModel, images: Path, tmp_path: Path
) -> None:
    for name in ("dataset.json", "plans.json", "postprocessing.json"):
        shutil.copyfile(plain_model.folder / name, tmp_path / name)
    (tmp_path / "A.nii.gz").touch()
    require_free_output(plain_model, input_cases(plain_model, images), tmp_path)
    (tmp_path / "plans.json").unlink()
    with pytest.raises(StorageError, match=r"holds A\.nii\.gz"):
        require_free_output(plain_model, input_cases(plain_model, images), tmp_path)
