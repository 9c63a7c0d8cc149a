from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.core.dataset import Dataset
from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import read_json, write_json
from segwright.core.manifest import read_manifest, read_manifests
from segwright.evaluation.summary import evaluate_folders, read_summary, summarize_crossval

READER = "SimpleITKIO"
ENDING = ".nii.gz"
LABELS = {"background": 0, "a": 1, "b": 2}


def maps(seed: int, names: str = "ABCD") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"case_{name}": rng.integers(0, 3, (2, 5, 6)).astype(np.uint8) for name in names}


@pytest.fixture
def crossval(make_dataset: Callable, make_fold: Callable) -> tuple[Dataset, list[Path]]:
    dataset = make_dataset(LABELS, maps(1))
    predicted = maps(2)
    names = list(predicted)
    folds = [make_fold(k, {name: predicted[name] for name in names[2 * k : 2 * k + 2]}) for k in (0, 1)]
    return dataset, folds


def test_crossval_summary_has_v2_schema_and_relative_paths(crossval: tuple, tmp_path: Path) -> None:
    dataset, folds = crossval
    output = tmp_path / "results" / "2d" / "crossval" / "summary.json"
    summary = summarize_crossval(folds, dataset, READER, output)
    record = read_json(output)
    assert set(record) == {"foreground_mean", "mean", "metric_per_case", "segwright"}
    assert set(record["mean"]) == {"1", "2"}
    assert set(record["mean"]["1"]) == {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}
    first = record["metric_per_case"][0]
    assert first["reference_file"] == "labelsTr/case_A.nii.gz"
    assert first["prediction_file"] == "../fold_0/validation/case_A.nii.gz"
    assert record["segwright"]["cases_per_fold"] == {"0": 2, "1": 2}
    assert str(tmp_path) not in output.read_text()
    reference, prediction = maps(1)["case_A"], maps(2)["case_A"]
    assert first["metrics"]["1"]["TP"] == int(((reference == 1) & (prediction == 1)).sum())
    dice = [case.counts[1].dice for case in summary.cases]
    assert record["mean"]["1"]["Dice"] == pytest.approx(np.mean(dice), abs=1e-12)
    assert read_summary(output) == summary


def test_same_bytes_for_any_number_of_workers(crossval: tuple, tmp_path: Path) -> None:
    dataset, folds = crossval
    one, two = tmp_path / "results" / "1" / "summary.json", tmp_path / "results" / "2" / "summary.json"
    summarize_crossval(folds, dataset, READER, one, workers=1)
    summarize_crossval(folds[::-1], dataset, READER, two, workers=2)
    assert one.read_bytes() == two.read_bytes()


def test_region_keys_are_tuples_in_text(make_dataset: Callable, make_fold: Callable, tmp_path: Path) -> None:
    dataset = make_dataset({"background": 0, "whole": [1, 2], "core": 2}, maps(1, "A"), [1, 2])
    output = tmp_path / "summary.json"
    summary = summarize_crossval([make_fold(0, maps(2, "A"))], dataset, READER, output)
    assert list(read_json(output)["mean"]) == ["(1, 2)", "2"]
    assert read_summary(output).keys == summary.keys == ((1, 2), 2)


def test_a_case_in_two_folds_is_an_error(make_dataset: Callable, make_fold: Callable, tmp_path: Path) -> None:
    dataset = make_dataset(LABELS, maps(1))
    folds = [make_fold(0, maps(2, "AB")), make_fold(1, maps(2, "BC"))]
    with pytest.raises(DatasetError, match=r"case_B.*one fold only"):
        summarize_crossval(folds, dataset, READER, tmp_path / "summary.json")


def test_altered_and_missing_predictions_are_named(crossval: tuple, write_map: Callable, tmp_path: Path) -> None:
    dataset, folds = crossval
    victim = read_manifest(folds[0])["case_A"].path
    write_map(victim, np.ones((2, 5, 6), np.uint8))
    with pytest.raises(DamagedFileError, match=r"case_A.*validation\.json"):
        summarize_crossval(folds, dataset, READER, tmp_path / "summary.json")
    victim.unlink()
    with pytest.raises(DamagedFileError, match="missing"):
        summarize_crossval(folds, dataset, READER, tmp_path / "summary.json")
    assert not (tmp_path / "summary.json").exists()


def test_predicted_case_without_label_is_an_error(make_dataset: Callable, make_fold: Callable, tmp_path: Path) -> None:
    dataset = make_dataset(LABELS, maps(1, "A"))
    with pytest.raises(DatasetError, match="case_B was predicted"):
        summarize_crossval([make_fold(0, maps(2, "AB"))], dataset, READER, tmp_path / "summary.json")


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "validation.json", {"cases": {"A": {"file": "x"}}})
    with pytest.raises(DamagedFileError, match=r"validation\.json"):
        read_manifests([tmp_path / "validation.json"])


def test_folders(crossval: tuple, make_fold: Callable, tmp_path: Path) -> None:
    dataset, _ = crossval
    predictions = make_fold(9, maps(2)).parent / "validation"
    output = tmp_path / "summary.json"
    facts = dataset.folder / "dataset.json"
    summary = evaluate_folders(dataset.folder / "labelsTr", predictions, facts, output)
    assert summary.case_ids == ("case_A", "case_B", "case_C", "case_D")
    assert read_json(output)["metric_per_case"][0]["prediction_file"] == "case_A.nii.gz"
    (predictions / f"case_A{ENDING}").unlink()
    with pytest.raises(DatasetError, match=r"without prediction.*case_A"):
        evaluate_folders(dataset.folder / "labelsTr", predictions, facts, output)
    partial = evaluate_folders(dataset.folder / "labelsTr", predictions, facts, output, partial=True)
    assert len(partial.cases) == 3
    shutil.copy(predictions / f"case_B{ENDING}", predictions / f"stray{ENDING}")
    with pytest.raises(DatasetError, match=r"without reference.*stray"):
        evaluate_folders(dataset.folder / "labelsTr", predictions, facts, output, partial=True)


def test_other_grid_is_named(crossval: tuple, make_fold: Callable, tmp_path: Path) -> None:
    dataset, _ = crossval
    fold = make_fold(7, {"case_A": np.zeros((2, 5, 7), np.uint8)})
    with pytest.raises(DatasetError, match=r"case case_A.*\(2, 5, 6\).*\(2, 5, 7\)"):
        summarize_crossval([fold], dataset, READER, tmp_path / "summary.json")


@pytest.mark.parametrize(
    ("file", "case_id"),
    [
        ("/a/case.1.nii.gz", "case.1"), ("case.1.NII.GZ", "case.1"), ("b.nii/case.1.nrrd", "case.1"),
        ("case.nii.png", "case.nii"), ("1.2.840.tif", "1.2.840"), ("case.1.other", "case.1"), ("case", "case"),
    ],
)  # fmt: skip
def test_case_ids_of_foreign_summaries_keep_their_dots(file: str, case_id: str, tmp_path: Path) -> None:
    metrics = {"Dice": 0.5, "FN": 1, "FP": 1, "IoU": 1 / 3, "TN": 8, "TP": 1, "n_pred": 2, "n_ref": 2}
    entry = {"metrics": {"1": metrics}, "prediction_file": file, "reference_file": file}
    record = {"foreground_mean": metrics, "mean": {"1": metrics}, "metric_per_case": [entry]}
    (tmp_path / "summary.json").write_text(json.dumps(record))
    assert read_summary(tmp_path / "summary.json").case_ids == (case_id,)


def test_reads_a_summary_of_nnunet_v2(tmp_path: Path) -> None:
    """Schema of method 11.2; v2 writes absolute paths and JSON NaN."""
    metrics = {"Dice": math.nan, "FN": 0, "FP": 0, "IoU": math.nan, "TN": 8, "TP": 0, "n_pred": 0, "n_ref": 0}
    entry = {
        "metrics": {"(1, 2)": metrics},
        "prediction_file": "/a/case_1.nii.gz",
        "reference_file": "/b/case_1.nii.gz",
    }
    record = {"foreground_mean": metrics, "mean": {"(1, 2)": metrics}, "metric_per_case": [entry]}
    (tmp_path / "summary.json").write_text(json.dumps(record))
    summary = read_summary(tmp_path / "summary.json")
    assert summary.case_ids == ("case_1",)
    assert summary.cases[0].counts[(1, 2)].tn == 8
    assert math.isnan(summary.foreground_mean["Dice"])
