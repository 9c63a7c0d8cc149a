"""Out-of-fold predictions from stored cases (method 9.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.errors import DatasetError, ModelError
from segwright.core.files import file_digest, read_json
from segwright.core.settings import PredictionSettings
from segwright.images.readers import read_image, read_label
from segwright.inference import fold as module
from segwright.inference.export import labels_from_logits, next_stage_labels
from segwright.inference.fold import StoredCases, predict_fold, require_finite
from segwright.inference.next_stage import collect_next_stage
from segwright.inference.probabilities import ProbabilityFile, mean_labels, mean_probabilities
from segwright.inference.request import Computation, Output
from segwright.inference.stage import Stage
from segwright.preprocessing.store import PreprocessedStore
from segwright.splits import Fold

from .conftest import REGIONS, Trained, predict_plan, predictor_of, write_weights

MakeTrained = Callable[..., Trained]
FOLD = Fold("0", (), ("a", "b"))


def predict(trained: Trained, output: Path, save_probabilities: bool = False, **changes: Any) -> None:
    index = changes.pop("index", None) or trained.store(trained.plan.preprocess, "own")
    how = Computation(changes.pop("settings", PredictionSettings()), "cpu", workers=changes.pop("workers", 2))
    predict_fold(
        Stage.of_folds(trained.plan, [trained.weights], [trained.training_json]),
        StoredCases(index, changes.pop("fold", FOLD), **changes),
        Output(output, ".nii.gz", save_probabilities),
        how,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_label_maps_lie_on_the_raw_grid(make_trained: MakeTrained, tmp_path: Path, workers: int) -> None:
    trained = make_trained(predict_plan(transpose_forward=(2, 0, 1), transpose_backward=(1, 2, 0)), mirror_axes=(0,))
    output = tmp_path / "fold_0"
    predict(trained, output, workers=workers)
    manifest = read_json(output / "validation.json")
    assert manifest["version"] == 1 and list(manifest["cases"]) == ["a", "b"]
    store = PreprocessedStore(trained.store(trained.plan.preprocess, "own"))
    predictor = predictor_of(trained.plan, trained.weights, mirror_axes=(0,))
    for case in trained.dataset.training:
        entry = manifest["cases"][case.case_id]
        assert entry["file"] == f"validation/{case.case_id}.nii.gz"
        assert entry["digest"] == file_digest(output / entry["file"])
        label = read_label(output / entry["file"], "SimpleITKIO")
        stored = store.open(case.case_id)
        expected = labels_from_logits(predictor.logits(stored.image_czyx), stored.properties, trained.plan)
        np.testing.assert_array_equal(label.array_zyx, expected)
        raw = read_image(case.image_files, "SimpleITKIO")
        assert label.geometry == raw.geometry
    assert read_json(output / "probabilities.json") == {"version": 1, "cases": {}}
    assert read_json(output / "next_stage.json") == {"version": 1, "target": {}}


def test_probabilities_are_written_on_request(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan(REGIONS))
    predict(trained, tmp_path / "f", save_probabilities=True)
    entry = read_json(tmp_path / "f" / "probabilities.json")["cases"]["b"]
    path = tmp_path / "f" / entry["file"]
    assert entry["digest"] == file_digest(path)
    array = mean_probabilities([ProbabilityFile(path)]).array_czyx
    assert array.shape == (2, 11, 12, 11)  # nothing is zero, so nothing was cropped
    assert array.min() >= 0 and array.max() <= 1


def test_cascade_maps_and_their_use(make_trained: MakeTrained, tmp_path: Path) -> None:
    """The low resolution makes label maps on the next stage's grid; the cascade is predicted with them."""
    low = replace(predict_plan(spacing_mm=(2.0, 2.0, 2.0)), configuration="3d_lowres", next_stages=("3d_cascade",))
    trained = make_trained(low)
    full = predict_plan()
    own, following = trained.store(low.preprocess, "low"), trained.store(full.preprocess, "full")
    for number, case_id in enumerate("ab"):
        output = tmp_path / "low" / f"fold_{number}"
        predict(trained, output, index=own, fold=Fold(str(number), (), (case_id,)),
                next_stages={"3d_cascade": following})  # fmt: skip
    joined = tmp_path / "low" / "next_stage.json"
    collect_next_stage([tmp_path / "low" / f"fold_{number}" / "next_stage.json" for number in (0, 1)], joined)
    entry = read_json(joined)["target"]["3d_cascade"]["b"]
    label = np.load(joined.parent / entry["file"], allow_pickle=False)
    stored, target = PreprocessedStore(own).open("b"), PreprocessedStore(following).open("b")
    assert label.dtype == np.uint8 and label.shape == target.properties.shape != stored.properties.shape
    scores = predictor_of(low, trained.weights).logits(stored.image_czyx)
    np.testing.assert_array_equal(label, next_stage_labels(scores, stored.properties, low, target.properties.shape))

    cascade = replace(full, configuration="3d_cascade", previous_stage="3d_lowres")
    weights = write_weights(tmp_path / "cascade.safetensors", cascade)
    predict(replace(trained, plan=cascade, weights=weights), tmp_path / "c", index=following, previous=joined)
    scores = predictor_of(cascade, weights).logits(target.image_czyx, label)
    found = read_label(tmp_path / "c" / "validation" / "b.nii.gz", "SimpleITKIO").array_zyx
    np.testing.assert_array_equal(found, labels_from_logits(scores, target.properties, cascade))
    with pytest.raises(DatasetError, match=r"needs its next_stage\.json"):
        predict(replace(trained, plan=cascade, weights=weights), tmp_path / "d", index=following)


def test_regions_written_as_values_above_255_are_written_in_full(make_trained: MakeTrained, tmp_path: Path) -> None:
    """nnU-Net v2 keeps their lowest eight bits: 256 would be background."""
    labels = {**REGIONS, "regions_class_order": [256, 300]}
    low = replace(predict_plan(labels), configuration="3d_lowres", next_stages=("3d_cascade",))
    trained = make_trained(low)
    trained = replace(trained, weights=write_weights(tmp_path / "both_regions", low, seed=1))
    index = trained.store(low.preprocess, "own")
    predict(trained, tmp_path / "f", index=index, save_probabilities=True, next_stages={"3d_cascade": index})
    stored = PreprocessedStore(index).open("b")
    scores = predictor_of(low, trained.weights).logits(stored.image_czyx)
    stored_zyx = np.where(scores[1] > 0, 300, np.where(scores[0] > 0, 256, 0))
    assert set(np.unique(stored_zyx)) == {0, 256, 300}
    np.testing.assert_array_equal(np.load(tmp_path / "f" / "next_stage" / "3d_cascade" / "b.npy"), stored_zyx)
    label_zyx = read_label(tmp_path / "f" / "validation" / "b.nii.gz", "SimpleITKIO").array_zyx
    np.testing.assert_array_equal(label_zyx, labels_from_logits(scores, stored.properties, low))
    assert set(np.unique(label_zyx)) == {0, 256, 300}
    averaged_zyx = mean_labels([ProbabilityFile(tmp_path / "f" / "probabilities" / "b.probabilities")])
    np.testing.assert_array_equal(averaged_zyx, label_zyx)


def test_finished_cases_are_kept_and_others_made_again(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(predict_plan())
    output = tmp_path / "f"
    predict(trained, output)
    expected = read_json(output / "validation.json")
    predicted: list[str] = []
    original = module._Fold._export

    def export(self: Any, case_id: str, *rest: Any) -> None:
        predicted.append(case_id)
        original(self, case_id, *rest)

    monkeypatch.setattr(module._Fold, "_export", export)
    (output / "validation.json").unlink()  # as Snakemake does before a job starts
    predict(trained, output)
    assert predicted == [] and read_json(output / "validation.json") == expected
    (output / "validation" / "b.nii.gz").write_bytes(b"altered")
    predict(trained, output)
    assert predicted == ["b"] and read_json(output / "validation.json") == expected
    predict(trained, output, settings=PredictionSettings(tile_step=0.25))
    assert predicted == ["b", "a", "b"]
    predict(trained, output, fold=Fold("0", (), ("a",)))
    assert not (output / "validation" / "b.nii.gz").exists()
    assert list(read_json(output / "validation.json")["cases"]) == ["a"]


def test_a_failing_export_names_its_case(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(predict_plan())

    def full_disk(path: Path, *_: Any) -> None:
        if path.name.startswith("b"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_label", full_disk)
    monkeypatch.setattr(module, "note_finished", lambda *_: {})
    with pytest.raises(DatasetError, match=r"case b: .*No space left"):
        predict(trained, tmp_path / "f", workers=2)
    assert not (tmp_path / "f" / "validation.json").exists()


def test_a_full_disk_is_noticed_before_predicting(
    make_trained: MakeTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(predict_plan())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DatasetError, match=r"the probabilities of 2 cases need up to .* but only 0 MiB are free"):
        predict(trained, tmp_path / "f", save_probabilities=True)


def test_a_stored_case_that_was_altered_is_refused_by_name(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan())
    index = trained.store(trained.plan.preprocess, "own")
    stored = PreprocessedStore(index).file("b").path
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"case b: its content is not what .* recorded; delete .*index.json"):
        predict(trained, tmp_path / "f", index=index)


def test_values_that_are_no_numbers_are_refused_with_file_and_channel() -> None:
    image_czyx = np.zeros((2, 3, 3, 3), np.float32)
    image_czyx[1, 0, 0, 0] = np.nan
    with pytest.raises(DatasetError, match=r"^x_0001.png: channel 1 holds values that are infinite or not numbers"):
        require_finite(image_czyx, [Path("x_0000.png"), Path("x_0001.png")])
    with pytest.raises(DatasetError, match=r"^x.tif: channel 1 holds"):
        require_finite(image_czyx, [Path("x.tif")])


def test_fold_all_has_nothing_out_of_fold(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan())
    predict(trained, tmp_path / "f", fold=Fold("all", ("a", "b"), ("a", "b")))
    assert read_json(tmp_path / "f" / "validation.json") == {"version": 1, "cases": {}}


def test_weights_of_another_plan_stop_before_any_output(make_trained: MakeTrained, tmp_path: Path) -> None:
    trained = make_trained(predict_plan())
    with pytest.raises(ModelError, match="do not fit"):
        predict(replace(trained, plan=predict_plan(REGIONS)), tmp_path / "f")
    assert not (tmp_path / "f" / "validation").exists()
