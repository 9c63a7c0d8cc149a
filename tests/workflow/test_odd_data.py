"""What real datasets look like: odd names and odd files, all in one tiny dataset, from raw images to segmentations."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from segwright.core.dataset import batch_of
from tests.fuzz.test_names import ACCEPTED_CASES, make_dataset
from tests.workflow.runner import TINY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(900)]

NAME = "Dataset950_Odd.data-set"
LABELS = {"background": 0, "gro\u00dfes \u201eOrgan\u201c (links)": 1, "l\u00e9sion | <b>&'\"": 2, "-rf $HOME `x`": 3}
OBLIQUE = (0.8, 0.0, -0.6, 0.36, 0.8, 0.48, 0.48, -0.6, 0.64)
PERMUTED = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
PLAIN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_case(
    folder: Path,
    case: str,
    *,
    shape_zyx: tuple[int, int, int] = (14, 20, 18),
    spacing_xyz: tuple[float, float, float] = (1.0, 1.0, 1.0),
    direction: tuple[float, ...] = PLAIN,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    image_type: str = "int16",
    label_type: str = "uint8",
    scale: float = 1.0,
    labels: tuple[int, ...] = (1, 2),
    test: bool = False,
) -> None:
    """A noisy image with a block for each label, in the middle."""
    rng = np.random.default_rng(sum(map(ord, case)))
    label = np.zeros(shape_zyx, label_type)
    z, y, x = (edge // 4 for edge in shape_zyx)
    for position, value in enumerate(labels):
        label[z : max(3 * z, 1), y : 3 * y, x + position * x // 2 : x + (position + 2) * x // 2] = value
    image = (rng.normal(100, 10, shape_zyx) + 40 * label) * scale

    def write(array: NDArray[np.generic], path: Path) -> None:
        made = sitk.GetImageFromArray(array)
        made.SetSpacing(spacing_xyz)
        made.SetOrigin(origin)
        made.SetDirection(direction)
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(made, str(path))

    write(image.astype(image_type), folder / f"images{'Ts' if test else 'Tr'}" / f"{case}_0000.nii.gz")
    if not test:
        write(label, folder / "labelsTr" / f"{case}.nii.gz")


def make_odd_dataset(folder: Path) -> Path:
    write_case(folder, "case one", labels=(1, 2, 3))  # label 3 is in this case alone
    write_case(folder, "M\u00fcller, J.", image_type="uint8", label_type="float32", spacing_xyz=(0.7, 0.7, 2.0))
    write_case(folder, "O'Brien_2", image_type="float32", scale=1e4, origin=(-120.5, 88.25, 1e3))  # up to 1.8e6
    write_case(folder, "x.y_(z)", direction=OBLIQUE, origin=(10.0, -20.0, 30.0), spacing_xyz=(1.0, 1.2, 0.9))
    write_case(folder, "\u75c5\u4f8b_5", direction=PERMUTED, spacing_xyz=(0.9, 1.1, 1.3), label_type="float64")
    write_case(folder, "p" * 120, direction=FLIPPED, shape_zyx=(40, 60, 50))  # 25 times the others
    write_case(folder, "empty & alone", labels=())
    write_case(folder, "slice 0001", shape_zyx=(1, 24, 22), spacing_xyz=(1.0, 1.0, 5.0))
    write_case(folder, "new <X> %s", test=True, direction=OBLIQUE, origin=(5.0, 6.0, 7.0), spacing_xyz=(1.1, 0.8, 1.5))
    write_case(folder, "a+b=c;d", test=True, shape_zyx=(1, 30, 26), direction=FLIPPED, image_type="float32")
    write_case(
        folder, "\u00e9t\u00e9~1", test=True, direction=PERMUTED, image_type="uint8", spacing_xyz=(2.0, 0.5, 0.5)
    )
    facts = {
        "channel_names": {"0": "T1 \u201eGd\u201c, <i>0.1 mmol/kg</i>"},
        "labels": LABELS,
        "numTraining": 8,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_every_accepted_case_name_passes_the_workflow(tmp_path: Path) -> None:
    names = tuple(name for name in ACCEPTED_CASES if name != "Mu\u0308ller" and not name.startswith("."))
    raw = make_dataset(tmp_path / "Dataset001_X", names)
    shutil.copytree(raw / "imagesTr", raw / "imagesTs")
    config = {"datasets": {"Dataset001_X": {"path": str(raw), "splits": {"folds": 2}, "batches": 1}}}
    project = Project(tmp_path / "work", config)
    test_batch = "results/Dataset001_X/data/test/batch_0.json"
    assert project.must_run("inspect_all", test_batch).jobs["inspect_test_batch"] == 1
    for path in ("results/Dataset001_X/data/inspection/batch_0.json", test_batch):
        assert sorted(project.json(path)["cases"]) == sorted(names)
    assert project.must_run("inspect_all", test_batch).jobs == Counter()


def test_odd_names_and_files_work(tmp_path: Path) -> None:
    raw = make_odd_dataset(tmp_path / "raw data" / NAME)
    training = {**TINY["training"], "configurations": ["3d_fullres"]}
    config = {
        "datasets": {NAME: {"path": str(raw), "splits": {"folds": 2}, "batches": 2}},
        "defaults": {**TINY, "training": training},
        "execution": {"device": "cpu"},
    }
    project = Project(tmp_path / "my results, \u00e4", config)
    project.must_run(cores=2)

    root = project.folder / "results" / NAME
    final = root / "default" / "final"
    tests = sorted(path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTs").iterdir())
    assert sorted(json.loads((final / "manifest.json").read_text())["cases"]) == tests
    for case in tests:
        image = sitk.ReadImage(str(raw / "imagesTs" / f"{case}_0000.nii.gz"))
        segmentation = sitk.ReadImage(str(final / f"{case}.nii.gz"))
        assert segmentation.GetSize() == image.GetSize()
        np.testing.assert_allclose(segmentation.GetSpacing(), image.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(segmentation.GetOrigin(), image.GetOrigin(), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(segmentation.GetDirection(), image.GetDirection(), atol=1e-6)
        assert set(np.unique(sitk.GetArrayFromImage(segmentation))) <= {0, 1, 2, 3}
    checks = project.json(f"results/{NAME}/data/checks.json")
    assert checks["valid"] and len(checks["cases"]) == 8
    codes = {(problem["code"], problem["case"]) for problem in checks["problems"]}
    assert ("label_empty", "empty & alone") in codes
    summary = project.json(f"results/{NAME}/default/3d_fullres/crossval/summary.json")
    assert len(summary["metric_per_case"]) == 8 and set(summary["mean"]) == {"1", "2", "3"}
    report = (root / "default" / "report.html").read_text(encoding="utf-8")
    assert "l\u00e9sion | &lt;b&gt;" in report and "<b>&'" not in report and "<i>0.1" not in report
    assert not [path for path in tmp_path.iterdir() if path.name not in ("raw data", "my results, \u00e4")]


def test_listed_files_that_change_places_are_inspected_again(phantom_project: Callable[..., Project]) -> None:
    project = phantom_project("regions", cases=2)
    ((name, settings),) = project.config["datasets"].items()
    folder, checks = Path(settings["path"]), f"results/{name}/data/checks.json"
    facts = json.loads((folder / "dataset.json").read_text())
    cases = [path.name.removesuffix(".nii.gz") for path in sorted((folder / "labelsTr").glob("*.nii.gz"))]
    facts["dataset"] = {
        case: {
            "images": [f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(2)],
            "label": f"labelsTr/{case}.nii.gz",
        }
        for case in cases
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    project.must_run(checks)
    facts["dataset"][cases[0]]["images"].reverse()
    (folder / "dataset.json").write_text(json.dumps(facts))
    assert project.must_run(checks).jobs == Counter(inspect_batch=1, collect_checks=1)
    record = project.json(f"results/{name}/data/inspection/{batch_of(cases[0], settings['batches'])}.json")
    assert record["cases"][cases[0]]["files"]["images"] == facts["dataset"][cases[0]]["images"]
