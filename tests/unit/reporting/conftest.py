"""A small finished pipeline, as the workflow leaves it, made by the library's own stages around made-up predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.dataset import Dataset, load_dataset
from segwright.core.files import file_digest, read_json, write_json, write_text
from segwright.core.settings import PlanningSettings, PreprocessingSettings
from segwright.evaluation.summary import summarize_crossval
from segwright.images.readers import read_label, write_label
from segwright.inference.finished import write_manifest
from segwright.inspection.checks import read_checks
from segwright.inspection.dataset import inspect_dataset
from segwright.phantom import make_phantom
from segwright.planning.planner import make_plans
from segwright.planning.slices import write_plan_folder
from segwright.reporting.results import ResultFiles
from segwright.selection.best import select_best, select_without_validation
from segwright.selection.postprocessing import determine_postprocessing, write_no_postprocessing


@dataclass(frozen=True)
class Finished:
    """Where the results lie."""

    root: Path
    data: Path
    dataset: Dataset
    benchmarks: Path

    @property
    def files(self) -> ResultFiles:
        """What the workflow hands to the report: here all that there is."""
        trainings = sorted(self.root.glob("*/fold_*/training.json"))
        summaries = {path.parent.parent.name: path for path in self.root.glob("*/crossval/summary.json")}
        final = self.root / "final" / "manifest.json"
        return ResultFiles(self.root, self.data, trainings, summaries, final if final.is_file() else None)


def make_finished(
    folder: Path, preset: str = "plain", *, shifts: Mapping[str, int] | None = None, folds: Sequence[str] = ("0", "1")
) -> Finished:
    """Four cases, two folds. A configuration's predictions are the references, shifted along x by ``shifts`` voxels."""
    raw = make_phantom(preset, 4, 3, folder / "Dataset900_Phantom", test_cases=1)
    dataset, data, root = load_dataset(raw), folder / "results" / "data", folder / "results" / "default"
    inspect_dataset(raw, data, batches=1)
    reader = read_checks(data / "checks.json").reader
    planning = PlanningSettings(base_features=4, max_stages=3)
    fingerprint = read_json(data / "dataset_fingerprint.json")
    plans, reasons = make_plans(fingerprint, dataset.description, planning, dataset.name, reader)
    write_plan_folder(root / "plan", plans, reasons, dataset.description, PreprocessingSettings())
    shifts = shifts or {name: 1 + 2 * index for index, name in enumerate(plans.configurations)}
    for name in shifts:
        for fold in folds:
            write_training(root / name / f"fold_{fold}", name, fold)
    benchmarks = folder / "benchmarks"
    write_text(benchmarks / "train_fold/default/2d/fold_0.tsv", "s\th:m:s\tmax_rss\n90\t0:01:30\t512.5\n")
    write_text(benchmarks / "train_fold/default/2d/fold_1.tsv", "s\th:m:s\tmax_rss\n30\t0:00:30\t-\n")
    write_text(benchmarks / "train_fold/other/2d/fold_0.tsv", "s\th:m:s\tmax_rss\n999\t0:01:30\t9999\n")
    write_text(benchmarks / "fingerprint.tsv", "s\th:m:s\tmax_rss\n6\t0:00:06\t100\n")
    (folder / "results" / "other" / "plan").mkdir(parents=True)
    if list(folds) == ["all"]:
        select_without_validation(list(shifts), root / "selection" / "selection.json", planned_folds=5)
        write_no_postprocessing(root / "postprocessing.json", "Nothing was held out to decide by.")
        return Finished(root, data, dataset, benchmarks)
    for name, shift in shifts.items():
        manifests = [_predict(dataset, root / name / f"fold_{fold}", int(fold), shift, reader) for fold in folds]
        summarize_crossval(manifests, dataset, reader, root / name / "crossval" / "summary.json")
    summaries = {name: root / name / "crossval" / "summary.json" for name in shifts}
    selection = root / "selection" / "selection.json"
    best = select_best(summaries, list(shifts), selection, folds=folds, planned_folds=2).best
    manifests = [root / best / f"fold_{fold}" / "validation.json" for fold in folds]
    determine_postprocessing(manifests, dataset, reader, "full", root / "postprocessing.json")
    write_json(root / "final" / "manifest.json", {"version": 1, "cases": {"t_1": {"file": "t_1.nii.gz", "digest": ""}}})
    return Finished(root, data, dataset, benchmarks)


def write_training(folder: Path, configuration: str, fold: str, epochs: int = 3) -> None:
    """training.json and training.jsonl as a training writes them."""
    rows = [
        {
            "epoch": epoch, "attempt": 1 + (epoch > 1), "learning_rate": 0.01, "train_loss": 0.5 - epoch / 10,
            "val_loss": None if fold == "all" else 0.6 - epoch / 10, "dice_per_class": [None, 0.5],
            "mean_fg_dice": 0.4 + epoch / 10, "ema_fg_dice": 0.4 + epoch / 20, "duration_s": 20.0,
            "data_wait_s": 0.5, "remaining_s": 20.0 * (epochs - 1 - epoch),
        }
        for epoch in range(epochs)
    ]  # fmt: skip
    write_text(folder / "training.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    metrics = {"train_loss": 0.3, "val_loss": 0.4, "ema_fg_dice": 0.5, "best_epoch": 2, "best_ema_fg_dice": 0.5}
    write_json(
        folder / "training.json",
        {
            "configuration": configuration, "fold": fold, "epochs": epochs, "stopped_early": False, "device": "cpu",
            "metrics": metrics, "plugins": {"mine.py": "f" * 64}, "versions": {"segwright": "0.1.0", "torch": "2.13.0"},
            "settings": {"epochs": epochs, "optimizer": "sgd", "mirroring": configuration != "2d", "seed": 7},
        },
    )  # fmt: skip


def _predict(dataset: Dataset, folder: Path, fold: int, shift: int, reader: str) -> Path:
    cases: dict[str, Any] = {}
    for case in dataset.training[fold::2]:
        assert case.label_file is not None
        label = read_label(case.label_file, reader)
        path = folder / "validation" / case.label_file.name
        predicted = np.roll(label.array_zyx, shift, axis=2)
        predicted[..., 0, 0] = label.array_zyx.max() if dataset.labels.ignore_label is None else 0  # a stray voxel
        write_label(path, predicted, label.geometry, reader)
        cases[case.case_id] = {"file": path, "digest": file_digest(path)}
    write_manifest(folder / "validation.json", folder, cases)
    return folder / "validation.json"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run of two configurations; read only."""
    return make_finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Finished]:
    return lambda *arguments, **options: make_finished(tmp_path, *arguments, **options)
