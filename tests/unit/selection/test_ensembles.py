from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import read_json
from segwright.core.labels import Labels
from segwright.core.manifest import read_manifest
from segwright.evaluation.metrics import case_metrics
from segwright.images.readers import read_label
from segwright.selection.ensembles import evaluate_ensemble
from segwright.selection.postprocessing import determine_postprocessing

READER = "SimpleITKIO"
PLAIN = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
SHAPE = (4, 6, 7)


def softmax_like(seed: int, outputs: int) -> np.ndarray:
    array = np.random.default_rng(seed).random((outputs, *SHAPE)).astype(np.float32)
    return array / array.sum(axis=0)


def labels_of(mean_czyx: np.ndarray, regions: bool) -> np.ndarray:
    """Method 10.4 word for word, with the border voxel that was cropped away as background."""
    if regions:
        result = np.zeros(SHAPE, np.uint8)
        for value, region in zip((1, 2), mean_czyx, strict=True):
            result[region > 0.5] = value
    else:
        result = mean_czyx.argmax(axis=0).astype(np.uint8)
    inside = np.zeros(SHAPE, np.uint8)
    inside[1:-1, 1:-1, 1:-1] = result[1:-1, 1:-1, 1:-1]
    return inside


@pytest.mark.parametrize(("labels", "order", "outputs"), [(PLAIN, None, 3), (REGIONS, [1, 2], 2)])
def test_label_maps_and_scores_of_the_mean(
    labels: dict, order: list, outputs: int, make_dataset: Callable, make_probabilities: Callable, tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    names = [f"case_{i}" for i in range(4)]
    references = {name: rng.integers(0, 3, SHAPE).astype(np.uint8) for name in names}
    dataset = make_dataset(labels, references, order)
    members, arrays = [], []
    for seed, configuration in ((0, "2d"), (100, "3d_fullres")):
        scale = 1.6 if order else 1.0  # so that some regions pass one half
        array = {name: scale * softmax_like(seed + i, outputs) for i, name in enumerate(names)}
        arrays.append(array)
        halves = [{n: array[n] for n in names[:2]}, {n: array[n] for n in names[2:]}]
        members.append([make_probabilities(configuration, k, dataset.labels, half) for k, half in enumerate(halves)])
    output = tmp_path / "ensembles" / "2d+3d_fullres"
    summary = evaluate_ensemble(members, dataset, READER, output)
    entries = read_manifest(output / "labels.json")
    assert list(entries) == names
    for name, case in zip(names, summary.cases, strict=True):
        mean = (arrays[0][name] + arrays[1][name]) / np.float32(2)
        expected = labels_of(mean, bool(order))
        np.testing.assert_array_equal(read_label(entries[name].verify(), READER).array_zyx, expected)
        assert case.counts == case_metrics(references[name], expected, dataset.labels)
    record = read_json(output / "summary.json")
    assert record["metric_per_case"][0]["prediction_file"] == "labels/case_0.nii.gz"
    result = determine_postprocessing([output / "labels.json"], dataset, READER, "full", tmp_path / "pp.json")
    assert result.before["foreground_mean"] == record["foreground_mean"]


@pytest.fixture
def ensemble(make_dataset: Callable, make_probabilities: Callable) -> tuple:
    dataset = make_dataset(PLAIN, {name: np.ones(SHAPE, np.uint8) for name in "AB"})
    members = [
        [make_probabilities(configuration, 0, dataset.labels, {n: softmax_like(seed + ord(n), 3) for n in "AB"})]
        for seed, configuration in enumerate(("2d", "3d_fullres"))
    ]
    return dataset, members


def test_only_changed_cases_are_made_again(ensemble: tuple, make_probabilities: Callable, tmp_path: Path) -> None:
    dataset, members = ensemble
    output = tmp_path / "ensemble"
    evaluate_ensemble(members, dataset, READER, output)
    first = {name: entry.path.stat().st_mtime_ns for name, entry in read_manifest(output / "labels.json").items()}
    for declared in ("summary.json", "labels.json"):  # as Snakemake does before a job starts
        (output / declared).unlink()
    arrays = {n: softmax_like(ord(n), 3) for n in "AB"}
    arrays["B"] = arrays["B"][[1, 0, 2]]
    make_probabilities("2d", 0, dataset.labels, arrays)
    evaluate_ensemble(members, dataset, READER, output, workers=2)
    again = {name: entry.path.stat().st_mtime_ns for name, entry in read_manifest(output / "labels.json").items()}
    assert again["A"] == first["A"]
    assert again["B"] != first["B"]


def test_an_altered_label_map_is_made_again(ensemble: tuple, write_map: Callable, tmp_path: Path) -> None:
    dataset, members = ensemble
    output = tmp_path / "ensemble"
    evaluate_ensemble(members, dataset, READER, output)
    content = (output / "summary.json").read_bytes()
    write_map(output / "labels" / "A.nii.gz", np.zeros(SHAPE, np.uint8))
    evaluate_ensemble(members, dataset, READER, output)
    assert (output / "summary.json").read_bytes() == content


def test_cases_that_are_gone_are_removed(ensemble: tuple, make_probabilities: Callable, tmp_path: Path) -> None:
    dataset, members = ensemble
    output = tmp_path / "ensemble"
    evaluate_ensemble(members, dataset, READER, output)
    for seed, configuration in enumerate(("2d", "3d_fullres")):
        make_probabilities(configuration, 0, dataset.labels, {"A": softmax_like(seed + ord("A"), 3)})
    evaluate_ensemble(members, dataset, READER, output)
    assert sorted(path.name for path in (output / "labels").iterdir()) == ["A.nii.gz"]


def test_members_with_other_cases_are_refused(ensemble: tuple, make_probabilities: Callable, tmp_path: Path) -> None:
    dataset, members = ensemble
    make_probabilities("2d", 0, dataset.labels, {"A": softmax_like(0, 3)})
    with pytest.raises(DatasetError, match=r"same cases \(B\).*2d.*3d_fullres"):
        evaluate_ensemble(members, dataset, READER, tmp_path / "ensemble")
    make_probabilities("2d", 0, dataset.labels, {})
    with pytest.raises(DatasetError, match="no probabilities"):
        evaluate_ensemble(members, dataset, READER, tmp_path / "ensemble")


def test_altered_probabilities_are_named(ensemble: tuple, tmp_path: Path) -> None:
    dataset, members = ensemble
    victim = read_manifest(members[1][0])["B"].path
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedFileError, match=r"B\.probabilities.*probabilities\.json"):
        evaluate_ensemble(members, dataset, READER, tmp_path / "ensemble")
    assert not (tmp_path / "ensemble" / "summary.json").exists()


def test_other_labels_cannot_be_averaged(make_dataset: Callable, make_probabilities: Callable, tmp_path: Path) -> None:
    dataset = make_dataset(PLAIN, {"A": np.ones(SHAPE, np.uint8)})
    other = Labels((("background", 0), ("a", 1)))
    members = [
        [make_probabilities("2d", 0, dataset.labels, {"A": softmax_like(0, 3)})],
        [make_probabilities("3d_fullres", 0, other, {"A": softmax_like(0, 2)})],
    ]
    with pytest.raises(DatasetError):
        evaluate_ensemble(members, dataset, READER, tmp_path / "ensemble")
