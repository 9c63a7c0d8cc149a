"""A dataset that is listed and never read, and experiments on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segwright.core.files import write_bytes, write_json
from segwright.experiment import Experiment
from segwright.planned import PlannedConfiguration

NAME = "Dataset001_X"


def make_raw(folder: Path) -> Path:
    """Seven training and three test cases of two channels; no image is ever opened here."""
    for part, cases in (("imagesTr", 7), ("imagesTs", 3)):
        for index in range(cases):
            for channel in range(2):
                write_bytes(folder / part / f"{'t' if part == 'imagesTs' else 'c'}{index}_{channel:04d}.nii.gz", b"")
    for index in range(6):  # the last case lacks its label
        write_bytes(folder / "labelsTr" / f"c{index}.nii.gz", b"")
    facts = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1}, "numTraining": 7}
    write_json(folder / "dataset.json", {**facts, "file_ending": ".nii.gz"})
    return folder


def load_experiment(raw: Path, dataset: Mapping[str, Any] | None = None, **config: Any) -> Experiment:
    """With settings of the dataset, and others by section."""
    return Experiment.load({"datasets": {NAME: {"path": str(raw), **(dataset or {})}}, **config})


def planned(**previous: str | None) -> dict[str, PlannedConfiguration]:
    return {
        name: PlannedConfiguration(
            name, f"{name}-id", stage, tuple(other for other, its in previous.items() if its == name)
        )
        for name, stage in previous.items()
    }


FOUR = {"2d": None, "3d_lowres": None, "3d_fullres": None, "3d_cascade_fullres": "3d_lowres"}
PLAN = planned(**FOUR)
