"""The memory of every job against what its rule declares: three image sizes, three numbers of classes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.core.geometry import Geometry
from segwright.images.readers import write_image, write_label
from tests.acceptance.recorder import Check
from tests.workflow.runner import TINY, Project

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(3600)]

NAME = "Dataset901_Blocks"
SIZES = {"small": (24, 40, 40), "middle": (64, 112, 112), "large": (128, 200, 200)}
CLASSES = (3, 12, 40)
ALLOWED = 1.1
PEAKS = Path(__file__).parents[1] / "faults" / "peak_memory"
_SCRIPT = re.compile(r"tmp\w+\.(\w+)\.py$")


@pytest.mark.parametrize("size", SIZES)
def test_no_job_needs_more_than_declared(
    check: Callable[[str, str], Check], tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = " x ".join(map(str, SIZES[size]))
    row = check(
        f"7 memory, {size} images",
        f"whole workflow, 2d and 3d_fullres, images of {shape} float32 with {', '.join(map(str, CLASSES))} labels: "
        "peak resident memory of every job (getrusage, all its processes) against its rule's mem_mb",
    )
    shares: dict[str, float] = {}
    with row.measured():
        for classes in CLASSES:
            project = make_project(tmp_path / str(classes), SIZES[size], classes)
            peaks = tmp_path / f"peaks_{classes}"
            peaks.mkdir()
            monkeypatch.setenv("SEGWRIGHT_PEAKS", str(peaks))
            project.must_run(options=("--benchmark-extended",), python_path=PEAKS)
            declared = declared_mb(project)
            for rule, peak_mb in peaks_mb(peaks).items():
                if rule in declared:
                    share = peak_mb / declared[rule]
                    row.say(f"{classes} labels, {rule}: {peak_mb:.0f} of {declared[rule]:.0f} MB")
                    shares[f"{rule}, {classes} labels"] = share
    worst = max(shares, key=lambda name: shares[name])
    row.say(f"largest share: {shares[worst]:.2f} ({worst})")
    assert shares[worst] <= ALLOWED, {name: round(share, 2) for name, share in shares.items() if share > ALLOWED}
    assert len({name.split(",")[0] for name in shares}) >= 10


def make_project(folder: Path, shape_zyx: tuple[int, int, int], classes: int) -> Project:
    """Four labelled images and one test image of blocks of labels, and a configuration with a tiny network."""
    data = folder / "data" / NAME
    generator = np.random.default_rng(classes)
    geometry = Geometry(shape_zyx, (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    for kind, number in (*(("Tr", n) for n in range(4)), ("Ts", 4)):
        coarse = generator.integers(0, classes, [-(-edge // 8) for edge in shape_zyx])
        label_zyx = np.kron(coarse, np.ones((8, 8, 8), np.uint8))[tuple(map(slice, shape_zyx))].astype(np.uint8)
        image_zyx = (label_zyx + generator.normal(0, 0.3, shape_zyx) + 1).astype(np.float32)
        write_image(data / f"images{kind}" / f"case_{number}_0000.nii.gz", image_zyx, geometry, "SimpleITKIO")
        if kind == "Tr":
            write_label(data / "labelsTr" / f"case_{number}.nii.gz", label_zyx, geometry, "SimpleITKIO")
    labels = {"background": 0, **{f"label_{value}": value for value in range(1, classes)}}
    facts = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(facts))
    config = {
        "datasets": {NAME: {"path": str(data), "splits": {"folds": 2}, "batches": 1}},
        "defaults": {
            **TINY,
            "planning": {**TINY["planning"], "max_patch_size": 64, "gpu_memory_gb": 0.3},
            "training": {**TINY["training"], "configurations": ["2d", "3d_fullres"]},
            "prediction": {"mirroring": False, "tile_step": 1.0},
        },
        "execution": {"device": "cpu"},
    }
    return Project(folder / "work", config)


def declared_mb(project: Project) -> dict[str, float]:
    """The smallest mem_mb that a rule's jobs declared."""
    found: dict[str, float] = {}
    for path in (project.folder / "results" / "benchmarks").rglob("*.tsv"):
        with path.open() as stream:
            for record in csv.DictReader(stream, delimiter="\t"):
                resources = json.loads(record["resources"].replace("'", '"'))
                rule = record["rule_name"]
                found[rule] = min(found.get(rule, float("inf")), float(resources["mem_mb"]))
    return found


def peaks_mb(folder: Path) -> dict[str, float]:
    """The largest memory of a rule's jobs: each script with the processes it started."""
    own: dict[int, tuple[float, int, str]] = {}
    for path in folder.glob("*.txt"):
        kib, parent, script = path.read_text().strip().split(" ", 2)
        own[int(path.stem)] = float(kib) * 1024 / 1e6, int(parent), script
    found: dict[str, float] = {}
    for pid, (peak_mb, _, script) in own.items():
        match = _SCRIPT.search(script)
        if match:
            children = sum(mb for mb, parent, _ in own.values() if parent == pid)
            found[match[1]] = max(found.get(match[1], 0.0), peak_mb + children)
    return found
