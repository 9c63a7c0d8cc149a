"""The whole line on real images of eight kinds, with a tiny network: formats, geometry, memory and time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.commands import example_project
from tests.acceptance.datasets import assert_on_grids_of_images, copy_dataset, raw_dataset, set_cases_aside
from tests.acceptance.recorder import Check

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

TIME_LIMIT_S = 10 * 60
DATASETS = {
    "ct_sarcoma": "CT",
    "mr_sarcoma": "MR, thick slices",
    "petct_sarcoma_small": "two channels",
    "brats_small": "regions",
    "nuclei2d_rgb": "2-D colour PNG",
    "em_vnc": "TIFF stacks",
    "hippocampus_mixed": "axes, flips and spacings differ",
    "ct_torso_large_variants": "cascade",
}
CASCADE = {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"}


@pytest.mark.parametrize("name", DATASETS)
def test_smoke(name: str, check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path) -> None:
    source = raw_dataset(shared_data, name)
    raw = copy_dataset(source, tmp_path / "data" / source.name)
    aside = set_cases_aside(raw)
    row = check(f"2 smoke {name}", f"`config/examples/smoke_cpu.yaml` on {name} ({DATASETS[name]}), `--cores 2`")
    project = example_project("smoke_cpu.yaml", tmp_path / "work", raw, splits={"folds": 2}, batches=2)
    with row.measured():
        run = project.must_run(cores=2)

    root = project.folder / project.config["results"] / raw.name / "default"
    configurations = set(json.loads((root / "plan" / "plans.json").read_text())["configurations"])
    facts = json.loads((raw / "dataset.json").read_text())
    values = assert_on_grids_of_images(raw, root / "final", aside)
    declared = {
        value for label in facts["labels"].values() for value in (label if isinstance(label, list) else [label])
    }
    row.say(
        f"{facts['numTraining']} training cases, {len(aside)} set aside as test images "
        f"{'(two would leave too few) ' if len(aside) < 2 else ''}and segmented on their grids; "
        f"configurations {', '.join(sorted(configurations))}; {sum(run.jobs.values())} jobs"
    )
    assert values <= declared
    assert len(aside) == (1 if name == "em_vnc" else 2)
    assert run.jobs["train_fold"] == 2 * len(configurations)
    assert (root / "model.zip").is_file() and (root / "report.html").is_file()
    if name == "ct_torso_large_variants":
        assert configurations == CASCADE
    if name == "nuclei2d_rgb":
        assert configurations == {"2d"}
    assert row.wall_s <= TIME_LIMIT_S
