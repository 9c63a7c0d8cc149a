"""Every broken dataset is refused with one message that names the case and the remedy, by command and by workflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.commands import example_project, segwright
from tests.acceptance.recorder import Check, quoted

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

AS_FOUND = "udacity_as_found"
BROKEN = {
    "Dataset901_shape_mismatch": "hippocampus_292",
    "Dataset902_label_value_out_of_range": "hippocampus_049",
    "Dataset903_image_nan": "hippocampus_036",
    "Dataset904_truncated_gzip": "hippocampus_035",
    "Dataset905_spacing_mismatch": "hippocampus_143",
    "Dataset906_image_without_label": "hippocampus_220",
    "Dataset907_image_4d": "hippocampus_092",
    "Dataset908_all_zero_image": "hippocampus_319",
    AS_FOUND: "hippocampus_118",
}
"""The case each message must name."""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_dataset(name: str, check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "broken" / name
    if name == AS_FOUND:
        raw = _raw_layout_of_as_found(raw, tmp_path / "Dataset909_AsFound")
    row = check(f"3 broken {name}", "`segwright inspect`; the workflow's `inspect_all`")
    with row.measured():
        command = segwright("inspect", "--dataset", raw, "--output", tmp_path / "checks")
        project = example_project("smoke_cpu.yaml", tmp_path / "work", raw, batches=2)
        run = project.run("inspect_all", cores=2)

    message = _message(command.stderr)
    row.say(f"exit codes {command.returncode} and {run.exit_code}: {quoted(message)}")
    assert command.returncode == 2
    assert run.exit_code == 1
    assert BROKEN[name] in " ".join(message)
    missing = [line for line in message if line not in run.output]
    assert not missing, f"the workflow does not say {missing}:\n{run.output[-3000:]}"
    assert "Traceback" not in command.stderr + run.output
    assert not (tmp_path / "checks" / "dataset_fingerprint.json").exists()


def test_folder_without_dataset_json(check: Callable[[str, str], Check], shared_data: Path, tmp_path: Path) -> None:
    """The same pair as its source repository holds it: no raw layout at all."""
    raw = shared_data / "broken" / AS_FOUND
    row = check(f"3 broken {AS_FOUND}, no dataset.json", "`segwright inspect`; the workflow's `inspect_all`")
    with row.measured():
        command = segwright("inspect", "--dataset", raw, "--output", tmp_path / "checks")
        run = example_project("smoke_cpu.yaml", tmp_path / "work", raw).run("inspect_all")
    message = _message(command.stderr)
    row.say(f"exit codes {command.returncode} and {run.exit_code}: {quoted(message)}")
    assert command.returncode == 2 and run.exit_code == 1
    assert "dataset.json" in " ".join(message)
    assert all(line in run.output for line in message)
    assert "Traceback" not in command.stderr + run.output


def test_every_broken_folder_is_checked(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "broken").iterdir() if path.is_dir()} == set(BROKEN)


def _message(stderr: str) -> list[str]:
    """The lines of the error, without progress and prefix."""
    text = stderr[stderr.index("error: ") :].removeprefix("error: ") if "error: " in stderr else stderr
    return [line.strip() for line in text.splitlines() if line.strip()]


def _raw_layout_of_as_found(source: Path, target: Path) -> Path:
    """The image without label and the label without image, put where a user would put them."""
    (target / "imagesTr").mkdir(parents=True)
    (target / "labelsTr").mkdir()
    shutil.copyfile(source / "images/hippocampus_118.nii.gz", target / "imagesTr/hippocampus_118_0000.nii.gz")
    shutil.copyfile(source / "labels/hippocampus_010.nii.gz", target / "labelsTr/hippocampus_010.nii.gz")
    facts = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(facts))
    return target
