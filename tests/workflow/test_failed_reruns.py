"""A job that failed is not forgotten: the same command fails again, and never calls the older products up to date."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from segwright.core.files import TEMPORARY_PREFIX
from segwright.phantom import make_phantom
from tests.workflow.runner import TINY, Project

NAME = "Dataset900_Phantom"


def test_failed_jobs_are_tried_again_although_older_products_are_there(tmp_path: Path) -> None:
    data = tmp_path / NAME
    make_phantom("plain", 4, seed=1, output=data, test_cases=1)
    training = {**TINY["training"], "configurations": ["2d"], "folds": [0]}
    config = {
        "datasets": {NAME: {"path": str(data), "splits": {"folds": 2}, "batches": 1}},
        "defaults": {**TINY, "training": training},
        "execution": {"device": "cpu"},
    }
    project = Project(tmp_path / "work", config)
    project.must_run(cores=2)
    assert not project.must_run(cores=2).jobs

    no_model = tmp_path / "no_model.safetensors"
    no_model.write_text("the training refuses this")
    project.config["defaults"]["training"]["initial_model"] = str(no_model)
    for target in ("all", "all", "evaluate_all", "predict_all", "report_all"):
        failed = project.run(target, cores=2)
        assert failed.exit_code == 1 and no_model.name in failed.output, failed.output[-3000:]
    del project.config["defaults"]["training"]["initial_model"]
    results = tmp_path / "work" / "results" / NAME / "default"
    (label_map,) = (results / "final").glob("*.nii.gz")
    for product in (results / "2d/fold_0/probabilities.json", results / "final/manifest.json", label_map):
        product.with_name(f"{TEMPORARY_PREFIX}0123456789ab-{product.name}").write_bytes(b"left by a killed job")
    (results / "final/manifest.json").unlink()
    assert project.must_run(cores=2).jobs["train_fold"] == 1
    assert not list(results.rglob(f"{TEMPORARY_PREFIX}*"))
    assert not project.must_run(cores=2).jobs

    image = data / "imagesTr" / "phantom_000_0000.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[:2000])
    for target in ("all", "all", "plan_all", "preprocess_all", "train_all"):
        failed = project.run(target, cores=2)
        assert failed.exit_code == 1 and not failed.jobs["plan"], failed.output[-3000:]
        assert "phantom_000" in failed.output, failed.output[-3000:]
    image.write_bytes(whole)
    mended = project.must_run(cores=2).jobs
    assert mended["require_valid_dataset"] == 1 and mended["train_fold"] == 0
    assert project.must_run(cores=2).jobs == Counter()
