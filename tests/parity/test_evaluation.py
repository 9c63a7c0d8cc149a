"""Metrics, their means and the choice of postprocessing against nnU-Net v2's (method 11, 12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.dataset import load_dataset
from segwright.core.files import file_digest, write_json
from segwright.core.geometry import Geometry
from segwright.core.labels import key_from_text, key_values
from segwright.evaluation.metrics import METRICS
from segwright.evaluation.summary import evaluate_folders
from segwright.images.readers import write_label
from segwright.inference.finished import write_manifest
from segwright.selection.postprocessing import determine_postprocessing

Arrays = dict[str, np.ndarray]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("seed", [2, 3, 5])
@pytest.mark.parametrize("preset", ["plain", "regions", "ignore", "regions_ignore"])
def test_summary_and_postprocessing(
    numbers: dict[str, Any], arrays: Callable[..., Arrays], tmp_path: Path, preset: str, seed: int
) -> None:
    recorded, golden = numbers["evaluation"][f"{preset}_{seed}"], arrays("evaluation", f"{preset}_{seed}/")
    facts = {**recorded["facts"], "channel_names": {"0": "x"}, "numTraining": 3, "file_ending": ".nrrd"}
    write_json(tmp_path / "dataset.json", facts)
    for name, array in golden.items():
        kind, case = name.split("/")
        geometry = Geometry(array.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
        if kind == "reference":
            write_label(tmp_path / "imagesTr" / f"{case}_0000.nrrd", array, geometry, "SimpleITKIO")
        folder = tmp_path / {"reference": "labelsTr", "prediction": "predictions"}[kind]
        write_label(folder / f"{case}.nrrd", array, geometry, "SimpleITKIO")

    references, predictions = tmp_path / "labelsTr", tmp_path / "predictions"
    summary = evaluate_folders(references, predictions, tmp_path / "dataset.json", tmp_path / "summary.json")
    expected = recorded["summary"]
    assert numbers_of(summary.foreground_mean) == pytest.approx(numbers_of(expected["foreground_mean"]), nan_ok=True)
    assert len(summary.cases) == len(expected["metric_per_case"]) == 3
    for case, theirs in zip(summary.cases, expected["metric_per_case"], strict=True):
        assert case.case_id == theirs["case"]
        for text, metrics in theirs["metrics"].items():
            mine = next(counts for key, counts in case.counts.items() if values(key) == values(key_from_text(text)))
            assert numbers_of(mine.to_json()) == pytest.approx(numbers_of(metrics), abs=1e-12, nan_ok=True)

    manifest = tmp_path / "manifest.json"
    files = {path.name.removesuffix(".nrrd"): path for path in predictions.iterdir()}
    write_manifest(manifest, tmp_path, {c: {"file": path, "digest": file_digest(path)} for c, path in files.items()})
    found = determine_postprocessing(
        [manifest], load_dataset(tmp_path), "SimpleITKIO", "full", tmp_path / "postprocessing.json"
    )
    assert [sorted(rule.values) for rule in found.rules] == recorded["rules"]
    after = numbers_of(found.after["foreground_mean"])
    assert after == pytest.approx(numbers_of(recorded["foreground_mean_after"]), abs=1e-12, nan_ok=True)


def numbers_of(metrics: Any) -> list[float]:
    return [float(metrics[name]) for name in METRICS]


def values(key: Any) -> set[int]:
    return set(key_values(key))
