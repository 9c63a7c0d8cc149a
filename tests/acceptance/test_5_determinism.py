"""The same bytes, however many cores and loader processes there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.core.files import file_digest
from tests.acceptance.datasets import copy_dataset, raw_dataset
from tests.acceptance.recorder import Check
from tests.workflow.runner import TINY, Project

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

CONFIGURATIONS = ("2d", "3d_fullres")
FOLDS = 2


def test_cores_and_workers_change_no_byte(
    check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path
) -> None:
    source = raw_dataset(shared_data, "hippocampus_small")
    raw = copy_dataset(source, tmp_path / "data" / source.name)
    row = check(
        "5 determinism",
        "a tiny network on hippocampus_small, 2d and 3d_fullres, 2 folds, twice: `--cores 1` without loader processes, "
        "`--cores 2` with 2 of them",
    )
    tiny: dict[str, Any] = dict(TINY)
    found = []
    for cores, workers in ((1, 0), (2, 2)):
        config: dict[str, Any] = {
            "datasets": {raw.name: {"path": str(raw), "splits": {"folds": FOLDS}, "batches": 2}},
            "defaults": {**tiny, "training": {**tiny["training"], "epochs": 2, "iterations": 4}},
            "execution": {"device": "cpu", "loader_workers": workers},
        }
        project = Project(tmp_path / f"cores_{cores}", config)
        with row.measured():
            project.must_run(cores=cores)
        found.append(_digests(project.folder / "results" / raw.name / "default"))

    first, second = found
    models = [name for name in first if name.endswith("model.safetensors") and "/fold_" in f"/{name}"]
    finals = [name for name in first if name.startswith("final/")]
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    row.say(f"{len(models)} models, {len(finals)} final and {len(first) - len(models) - len(finals)} out-of-fold "
            f"segmentations compared by SHA-256, {len(different)} differ")  # fmt: skip
    assert len(models) == FOLDS * len(CONFIGURATIONS)
    assert len(finals) == len(list((raw / "imagesTs").iterdir()))
    assert not different


def _digests(root: Path) -> dict[str, str]:
    """SHA-256 of every model, and of every segmentation of validation and test cases."""
    paths = [
        *root.glob("*/fold_*/model.safetensors"),
        *root.glob("*/fold_*/validation/*.nii.gz"),
        *root.glob("final/*.nii.gz"),
    ]
    return {str(path.relative_to(root)): file_digest(path) for path in sorted(paths)}
