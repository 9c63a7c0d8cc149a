"""Predicting raw images: a batch of the workflow, and any images with a whole model (method 10)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.dataset import Case
from segwright.core.errors import DatasetError
from segwright.core.files import file_digest, read_json
from segwright.core.settings import PredictionSettings
from segwright.images.image import LabelMap
from segwright.images.readers import read_image, read_label, write_image
from segwright.inference import cases as module
from segwright.inference.cases import RawCases, predict_batch, predict_image, predict_images
from segwright.inference.export import labels_from_logits
from segwright.inference.predictor import Predictor
from segwright.inference.probabilities import ProbabilityFile
from segwright.inference.request import Computation, Output
from segwright.inference.stage import Stage

from .conftest import Trained, geometry, predict_plan, predictor_of, write_weights
from .test_export import probabilities_at_once

MakeTrained = Callable[..., Trained]
SETTINGS = PredictionSettings()
ON_CPU = Computation(SETTINGS, "cpu")


def batch(
    trained: Trained,
    folder: Path,
    previous: Path | None = None,
    settings: PredictionSettings = SETTINGS,
    save_probabilities: bool = False,
) -> dict[str, Any]:
    predict_batch(
        Stage.of_folds(trained.plan, [trained.weights], [trained.training_json]),
        RawCases(trained.dataset.folder, trained.test_batch, previous),
        Output(folder, ".nii.gz", save_probabilities),
        Computation(settings, "cpu"),
    )
    return dict(read_json(folder / "batch_0.json")["cases"])


def direct(trained: Trained, case_id: str) -> np.ndarray:
    predictor = predictor_of(trained.plan, trained.weights)
    image = read_image([trained.dataset.folder / "imagesTs" / f"{case_id}_0000.nii.gz"], "SimpleITKIO")
    scores, properties = predict_image(predictor, image)
    return labels_from_logits(scores, properties, trained.plan)


def test_a_batch_of_test_images(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan())
    folder = tmp_path / "predictions"
    entries = batch(trained, folder, save_probabilities=True)
    assert list(entries) == ["x", "y"]
    for case_id, entry in entries.items():
        path = folder / entry["file"]
        assert entry["file"] == f"cases/{case_id}.{entry['inputs'][:12]}.nii.gz"
        assert file_digest(path) == entry["digest"]
        np.testing.assert_array_equal(read_label(path, "SimpleITKIO").array_zyx, direct(trained, case_id))
        probabilities = folder / entry["probabilities"]["file"]
        assert file_digest(probabilities) == entry["probabilities"]["digest"]
        assert ProbabilityFile(probabilities).score_planes(0, 1).shape[0] == 3


def test_finished_test_cases_are_kept(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(predict_plan())
    folder = tmp_path / "predictions"
    first = batch(trained, folder)
    monkeypatch.setattr(module, "predict_image", lambda *_: pytest.fail("nothing is to be predicted"))
    (folder / "batch_0.json").unlink()
    assert batch(trained, folder) == first
    monkeypatch.undo()
    other = batch(trained, folder, settings=PredictionSettings(gaussian=False))
    assert other["x"]["file"] != first["x"]["file"]
    assert not (folder / first["x"]["file"]).exists()  # replaced


def test_a_cascade_takes_the_previous_label_maps(make_trained: MakeTrained, tmp_path: Path) -> None:
    low = replace(predict_plan(spacing_mm=(2.0, 2.0, 2.0)), configuration="3d_lowres")
    trained = make_trained(low)
    before = batch(trained, tmp_path / "low")
    cascade = replace(predict_plan(), configuration="3d_cascade", previous_stage="3d_lowres")
    weights = write_weights(tmp_path / "cascade.safetensors", cascade)
    after = batch(
        replace(trained, plan=cascade, weights=weights),
        tmp_path / "cascade",
        previous=tmp_path / "low" / "batch_0.json",
    )
    image = read_image([trained.dataset.folder / "imagesTs" / "x_0000.nii.gz"], "SimpleITKIO")
    label = read_label(tmp_path / "low" / before["x"]["file"], "SimpleITKIO")
    predictor = predictor_of(cascade, weights)
    scores, properties = predict_image(predictor, image, label)
    expected = labels_from_logits(scores, properties, cascade)
    found = read_label(tmp_path / "cascade" / after["x"]["file"], "SimpleITKIO").array_zyx
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(DatasetError, match="a cascade, and only a cascade"):
        predict_image(predictor, image)

    # the same two stages in one call
    stages = [
        Stage(low, (trained.weights,)),
        Stage(cascade, (weights,)),
    ]
    files = predict_images([stages], trained.dataset.test, Output(tmp_path / "out", ".nii.gz"), ON_CPU)
    np.testing.assert_array_equal(read_label(files["x"], "SimpleITKIO").array_zyx, expected)


def test_an_ensemble_averages_probabilities_and_is_finished(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(predict_plan())
    flat = predict_plan(dimensions=2, patch=(8, 8), spacing_mm=(1.0, 1.0))
    chains = [
        [Stage(trained.plan, (trained.weights,))],
        [Stage(flat, (write_weights(tmp_path / "flat", flat),))],
    ]

    def run() -> dict[str, Path]:
        return predict_images(
            chains,
            trained.dataset.test,
            Output(tmp_path / "out", ".nii.gz", save_probabilities=True),
            ON_CPU,
            finish=lambda label: np.where(label == 2, 0, label).astype(label.dtype),
        )

    files = run()
    image = read_image(trained.dataset.test[0].image_files, "SimpleITKIO")
    mean = 0
    for chain in chains:
        scores, properties = predict_image(Predictor(chain[0], ON_CPU), image)
        mean = mean + probabilities_at_once(scores, properties, chain[0].plan) / 2
    expected = mean.argmax(axis=0)
    expected[expected == 2] = 0
    np.testing.assert_array_equal(read_label(files["x"], "SimpleITKIO").array_zyx, expected)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "x.npz")["probabilities"], mean, atol=1e-6)
    monkeypatch.setattr(module, "predict_image", lambda *_: pytest.fail("nothing is to be predicted"))
    half = tmp_path / "out" / ".part-0123456789ab-x.npz"
    half.write_bytes(b"left by a killed prediction")
    assert run() == files and not half.exists()


def test_an_unreadable_file_does_not_keep_the_other_images(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan())
    x, y = trained.dataset.test
    lost = replace(x, case_id="lost", image_files=(tmp_path / "lost_0000.nii.gz",))
    lost.image_files[0].symlink_to(tmp_path / "nowhere")
    pipe = replace(x, case_id="pipe", image_files=(tmp_path / "pipe_0000.nii.gz",))
    os.mkfifo(pipe.image_files[0])  # who opens it waits for ever
    chains = [[Stage(trained.plan, (trained.weights,))]]

    def run(output: Path) -> dict[str, Path]:
        return predict_images(chains, [lost, pipe, x, y], Output(output, ".nii.gz"), ON_CPU)

    for _ in range(2):  # what is finished stays so
        with pytest.raises(DatasetError, match=r"case lost: .*lost_0000\.nii\.gz: the file does not exist") as caught:
            run(tmp_path / "out")
        assert "case x" not in str(caught.value) and "case y" not in str(caught.value)
        assert "case pipe" in str(caught.value)
    for case_id in "xy":
        found = read_label(tmp_path / "out" / f"{case_id}.nii.gz", "SimpleITKIO").array_zyx
        np.testing.assert_array_equal(found, direct(trained, case_id))
    (tmp_path / "nowhere").write_bytes(x.image_files[0].read_bytes())
    pipe.image_files[0].unlink()
    pipe.image_files[0].symlink_to(y.image_files[0])
    run(tmp_path / "out")
    assert (tmp_path / "out" / "lost.nii.gz").read_bytes() == (tmp_path / "out" / "x.nii.gz").read_bytes()


def test_an_image_is_predicted_again_if_its_spacing_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = predict_plan(reader="Tiff3DIO")
    chains = [[Stage(plan, (write_weights(tmp_path / "weights", plan),))]]
    image_zyx = np.random.default_rng(1).normal(100, 20, (10, 12, 11)).astype(np.float32)
    write_image(tmp_path / "case_0001_0000.tif", image_zyx, geometry(), "Tiff3DIO")
    case = Case("case_0001", (tmp_path / "case_0001_0000.tif",), None)

    def spacing_of_result() -> list[float]:
        predict_images(chains, [case], Output(tmp_path / "out", ".tif"), ON_CPU)
        return list(read_label(tmp_path / "out" / "case_0001.tif", "Tiff3DIO").geometry.spacing_zyx)

    assert spacing_of_result() == [1.25, 0.8, 1.1]
    (tmp_path / "case_0001.json").write_text('{"spacing": [2.0, 0.8, 1.1]}')
    assert spacing_of_result() == [2.0, 0.8, 1.1]
    monkeypatch.setattr(module, "predict_image", lambda *_: pytest.fail("nothing is to be predicted"))
    assert spacing_of_result() == [2.0, 0.8, 1.1]


def test_bad_images_are_refused_by_name(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan())
    bad = trained.dataset.test[1].image_files[0]
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"case y: .*y_0000"):
        batch(trained, tmp_path / "p")
    assert not (tmp_path / "p" / "batch_0.json").exists()
    from segwright.inspection.batch import inspect_batch

    inspect_batch(trained.dataset, ["x", "y"], trained.test_batch, trained.test_batch.parent, test=True)
    with pytest.raises(DatasetError, match=r"cannot be predicted:\ny: .*y_0000"):
        batch(trained, tmp_path / "p")


def test_previous_stage_must_have_predicted_every_case(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(replace(predict_plan(), previous_stage="3d_lowres"))
    (tmp_path / "low.json").write_text('{"version": 1, "cases": {"x": {"file": "x.nii.gz", "digest": "0"}}}')
    with pytest.raises(DatasetError, match=r"the previous stage did not predict y"):
        batch(trained, tmp_path / "p", previous=tmp_path / "low.json")


def test_a_previous_label_map_of_another_shape_is_refused(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(replace(predict_plan(), previous_stage="3d_lowres"))
    image = read_image(trained.dataset.test[0].image_files, "SimpleITKIO")
    label = LabelMap(np.zeros((2, 2, 2), np.uint8), image.geometry, "uint8")
    predictor = predictor_of(trained.plan, trained.weights)
    with pytest.raises(DatasetError, match="one grid"):
        predict_image(predictor, image, label)
