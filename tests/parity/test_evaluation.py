"""Metrics, their means and the choice of postprocessing against nnU-Net v2's (method 11, 12)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.files import file_digest
from segwright.core.labels import key_from_text, key_values
from segwright.evaluation.metrics import METRICS
from segwright.evaluation.summary import evaluate_folders
from segwright.images.readers import write_label
from segwright.inference.finished import write_manifest
from segwright.selection.postprocessing import determine_postprocessing
from tests.parity.datasets import ENDING, READER, grid, reference_dataset

Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize("seed", [2, 3, 5])
@pytest.mark.parametrize("preset", ["plain", "regions", "ignore", "regions_ignore"])
def test_summary_and_postprocessing(
    numbers: dict[str, Any], arrays: Callable[..., Arrays], tmp_path: Path, preset: str, seed: int
) -> None:
    recorded = numbers["evaluation"][f"{preset}_{seed}"]
    dataset = reference_dataset(tmp_path, recorded["facts"], arrays("evaluation", f"{preset}_{seed}/reference/"))
    predictions, manifest = tmp_path / "predictions", tmp_path / "manifest.json"
    files: dict[str, dict[str, Any]] = {}
    for case_id, label_zyx in arrays("evaluation", f"{preset}_{seed}/prediction/").items():
        path = predictions / f"{case_id}{ENDING}"
        write_label(path, label_zyx, grid(label_zyx.shape), READER)
        files[case_id] = {"file": path, "digest": file_digest(path)}
    write_manifest(manifest, tmp_path, files)

    summary_file = tmp_path / "summary.json"
    summary = evaluate_folders(tmp_path / "labelsTr", predictions, tmp_path / "dataset.json", summary_file).to_json()
    expected = recorded["summary"]
    assert_equal_metrics({"foreground": summary["foreground_mean"]}, {"foreground": expected["foreground_mean"]})
    assert_equal_metrics(summary["mean"], expected["mean"])
    assert len(summary["metric_per_case"]) == len(expected["metric_per_case"]) == 3
    for mine, theirs in zip(summary["metric_per_case"], expected["metric_per_case"], strict=True):
        assert mine["prediction_file"] == f"{theirs['case']}{ENDING}"
        assert_equal_metrics(mine["metrics"], theirs["metrics"])

    found = determine_postprocessing([manifest], dataset, READER, "full", tmp_path / "postprocessing.json")
    assert [sorted(rule.values) for rule in found.rules] == recorded["rules"]
    after = {"foreground": found.after["foreground_mean"]}
    assert_equal_metrics(after, {"foreground": recorded["foreground_mean_after"]})


def test_rules_are_accepted_and_refused(numbers: dict[str, Any]) -> None:
    accepted = [len(entry["rules"]) for entry in numbers["evaluation"].values()]
    assert len(accepted) == 12 and 0 < sum(count > 0 for count in accepted) < 12


def assert_equal_metrics(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Of the same structures: counts exactly, shares to 1e-12."""
    assert {values(text) for text in mine} == {values(text) for text in theirs}
    own = {values(text): metrics for text, metrics in mine.items()}
    for text, metrics in theirs.items():
        assert set(metrics) == set(METRICS)
        for name in METRICS:
            assert own[values(text)][name] == pytest.approx(metrics[name], rel=0, abs=1e-12, nan_ok=True), (text, name)


def values(text: str) -> tuple[int, ...] | str:
    """The label values of a key of a summary; a region of one label may be written as a number or a tuple."""
    return text if text == "foreground" else tuple(sorted(key_values(key_from_text(text))))
