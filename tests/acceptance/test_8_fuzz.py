"""A hundred thousand mutated inputs: each is used, or refused with one message that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.recorder import Check
from tests.fuzz.runner import fuzz
from tests.fuzz.targets import REAL

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

SEED = 1
GROUPS = {
    "images": ("nifti", "nifti_gz", "nrrd", "mha", "gipl", "png", "bmp", "tiff", "case", "channels"),
    "configuration, datasets, plans": (
        "dataset_json", "config", "planning", "plans", "slice_preprocess", "slice_train", "slice_predict", "conversion",
    ),
    "splits, indices, results": ("splits", "index", "inspection", "case_table", "results"),
    "models": ("model_folder", "model_zip", "weights", "stored_case", "nnunet_v2"),
}  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_mutated_inputs(group: str, check: Callable[[str, str], Check], tmp_path: Path) -> None:
    row = check(f"8 fuzz {group}", f"`python -m tests.fuzz --seed {SEED}`: {', '.join(GROUPS[group])}")
    outcomes = []
    with row.measured():
        for name in GROUPS[group]:
            outcomes.append(fuzz(name, SEED, 0, REAL[name].share, tmp_path / name))
    inputs, used = sum(o.inputs for o in outcomes), sum(o.used for o in outcomes)
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    row.say(
        f"{inputs} inputs, {used} used, {sum(o.refused for o in outcomes)} refused, {len(findings)} findings;"
        f" slowest input {max(o.slowest_s for o in outcomes):.2f} CPU seconds,"
        f" largest process {max(o.peak_bytes for o in outcomes) >> 20} MiB"
    )
    assert not findings, "\n".join(findings[:3])
    assert inputs == sum(REAL[name].share for name in GROUPS[group])


def test_every_target_is_in_a_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(REAL)
