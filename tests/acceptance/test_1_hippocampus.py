"""A small network learns the hippocampus on two CPU cores: the whole line from images to a scored model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.commands import example_project, must
from tests.acceptance.datasets import assert_on_grids_of_images, raw_dataset
from tests.acceptance.recorder import Check

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(2 * 3600)]

TIME_LIMIT_S = 40 * 60
LEAST_DICE = 0.80


def test_hippocampus_on_two_cores(check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path) -> None:
    raw = raw_dataset(shared_data, "hippocampus_small")
    row = check(
        "1 hippocampus_cpu", "`config/examples/hippocampus_cpu.yaml` on hippocampus_small, `--cores 2`; then `evaluate`"
    )
    project = example_project("hippocampus_cpu.yaml", tmp_path, raw)
    with row.measured():
        run = project.must_run(cores=2)
    root = tmp_path / project.config["results"] / raw.name / "default"
    selection = json.loads((root / "selection" / "selection.json").read_text())
    score = selection["scores"][selection["best"]]
    singles = ", ".join(f"{name} {value:.4f}" for name, value in selection["scores"].items())
    row.say(f"selected {selection['best']}; cross-validation mean foreground Dice {score:.4f} ({singles})")

    cases = tuple(sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").iterdir()))
    assert_on_grids_of_images(raw, root / "final", cases)
    scored = tmp_path / "test_summary.json"
    must(
        "evaluate", "--reference", raw / "labelsTs", "--prediction", root / "final",
        "--dataset-json", raw / "dataset.json", "--output", scored,
    )  # fmt: skip
    test_dice = json.loads(scored.read_text())["foreground_mean"]["Dice"]
    row.say(f"Dice {test_dice:.4f} on the {len(cases)} cases of labelsTs; {sum(run.jobs.values())} jobs")

    assert run.jobs["train_fold"] == 10
    assert (root / "model.zip").is_file() and (root / "report.html").is_file()
    assert score >= LEAST_DICE
    assert row.wall_s <= TIME_LIMIT_S
