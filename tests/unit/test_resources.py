"""What jobs ask for: numbers by hand, and that what is asked for holds what is really needed."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright import resources
from segwright.core.architecture import Architecture
from segwright.core.files import read_json, write_json
from segwright.core.geometry import Geometry
from segwright.core.labels import Labels
from segwright.core.slices import PredictPlan, PreprocessPlan
from segwright.evaluation.metrics import joint_histogram
from segwright.inference import interpolation
from segwright.inference.probabilities import (
    ProbabilityFile,
    mean_labels,
    mean_probabilities,
    write_npz,
    write_probabilities,
)
from segwright.preprocessing.case import plan_geometry
from segwright.preprocessing.memory import PROGRAM_MB, estimate_memory_mb
from segwright.resources import (
    CaseSize,
    Needs,
    case_threads,
    ensemble_needs,
    evaluation_needs,
    finishing_needs,
    inspection_needs,
    postprocessing_needs,
    prediction_needs,
    preprocessing_needs,
    read_case_sizes,
    report_needs,
)


def labels_of(classes: int) -> Labels:
    return Labels((("background", 0), *((f"label_{value}", value) for value in range(1, classes))))


def predict_plan(classes: int, spacing_mm: Sequence[float] = (1, 1, 1), **changes: Any) -> PredictPlan:
    preprocess = PreprocessPlan(
        data_name="3d_fullres",
        channel_names=("MRI",),
        labels=labels_of(classes),
        reader="SimpleITKIO",
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        spacing_mm=tuple(spacing_mm),
        normalization_schemes=("ZScoreNormalization",),
        use_mask_for_norm=(False,),
        intensities=(None,),
    )
    architecture = Architecture("plain_unet", (4, 6), ((3,) * 3,) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
    return PredictPlan("3d_fullres", replace(preprocess, **changes), (32,) * 3, architecture)


def case(shape: Sequence[int], spacing: Sequence[float] = (1, 1, 1), channels: int = 1) -> CaseSize:
    (z, y, x), (dz, dy, dx) = shape, spacing
    return CaseSize(channels, (z, y, x), (dz, dy, dx))


LARGE = case((500, 512, 512))  # 131 million voxels
MEGAVOXEL = case((100, 100, 100))


# --- sizes ------------------------------------------------------------------------------------------------------------


def record(shape: Sequence[int], channels: int = 1) -> dict[str, Any]:
    return {"channels": channels, "geometry": {"shape_zyx": list(shape), "spacing_zyx": [1.0, 2.0, 3.0]}}


def test_sizes_come_from_all_records_that_exist(tmp_path: Path) -> None:
    unreadable = {"channels": 0, "geometry": None}
    write_json(tmp_path / "a.json", {"cases": {"one": record((2, 3, 4), 2), "damaged": unreadable}})
    write_json(tmp_path / "b.json", {"cases": {"two": record((5, 6, 7))}})
    sizes = read_case_sizes([tmp_path / name for name in ("a.json", "missing.json", "b.json")])
    assert sizes == {"one": case((2, 3, 4), (1, 2, 3), 2), "two": case((5, 6, 7), (1, 2, 3))}
    assert sizes["one"].voxels == 24 and read_case_sizes([]) == {}


def test_a_damaged_record_does_not_end_what_runs(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"cases": {"one": record((2, 3, 4))}}, sealed=True)
    write_json(tmp_path / "b.json", {"cases": {"two": record((5, 6, 7))}}, sealed=True)
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text().replace("7", "8"))
    assert list(read_case_sizes([tmp_path / "a.json", tmp_path / "b.json"])) == ["one"]


def test_a_record_is_read_once_until_it_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_and_count(path: Path) -> Any:
        read.append(path)
        return read_json(path)

    monkeypatch.setattr(resources, "read_json", read_and_count)
    path = tmp_path / "batch_0.json"
    write_json(path, {"cases": {"one": record((2, 3, 4))}})
    for _ in range(3):
        assert read_case_sizes([path])["one"].voxels == 24
    assert len(read) == 1
    write_json(path, {"cases": {"one": record((2, 3, 5))}})  # as long as before
    os.utime(path, ns=(1, 1))
    assert read_case_sizes([path])["one"].voxels == 30 and len(read) == 2


# --- inspection and preprocessing -------------------------------------------------------------------------------------


def test_inspection_holds_all_files_of_a_case(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("0", "1", "2")]
    for path, size in zip(files, (2_000_000, 3_000_000, 4_000_000), strict=True):
        with path.open("wb") as stream:
            stream.truncate(size)
    assert inspection_needs([files[:2], files[2:]], 1) == Needs(800 + 25 * 5, 120)
    assert inspection_needs([files[:2], files[2:]], 2) == Needs(400 + 2 * (400 + 25 * 5), 120)
    assert inspection_needs([[tmp_path / "missing"]], 1) == Needs(800, 120) == inspection_needs([], 1)
    assert inspection_needs([files] * 5000, 1).minutes == ceil(5000 * (2 + 9 * 0.3) / 60)


def test_preprocessing_needs_its_largest_case_once_a_worker() -> None:
    plan = predict_plan(3).preprocess
    cases = [case((40,) * 3), case((90,) * 3)]
    largest = estimate_memory_mb((90, 90, 90), (1, 1, 1), plan, 1)
    assert preprocessing_needs(cases, plan, 1) == Needs(400 + largest, 240)
    assert preprocessing_needs(cases, plan, 3).memory_mb == 400 + 3 * largest
    assert preprocessing_needs([], plan, 1) == Needs(400 + PROGRAM_MB, 240)
    many = [replace(LARGE, channels=4)] * 156
    assert preprocessing_needs(many, plan, 1).minutes == ceil(156 * (2 + 0.5 * 4 * 131.072) / 60) > 600


# --- prediction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("models", "arrays"), [(1, 2), (5, 3)])
def test_prediction_holds_the_scores_of_two_cases_and_a_sum(models: int, arrays: int) -> None:
    """A case of a million voxels that has eight million on the grid of the plan."""
    plan, coarse = predict_plan(10), case((100,) * 3, (2, 2, 2))
    preparing = estimate_memory_mb((100,) * 3, (2, 2, 2), plan.preprocess, 1) - PROGRAM_MB
    scores, image, maps = 8 * 4 * 10 * arrays, 8 * 4, 8 * 8 + 8
    assert prediction_needs([MEGAVOXEL, coarse], plan, models, 8000) == Needs(
        8000 + preparing + scores + image + maps, 720
    )


def test_channels_do_not_multiply_outputs() -> None:
    plan = predict_plan(118)
    one, many = (
        prediction_needs([replace(MEGAVOXEL, channels=channels)], plan, 1, 8000).memory_mb for channels in (1, 30)
    )
    assert 29 * 4 < many - one < 29 * 16, "of the image itself, of the one that is prepared, and room"


def test_prediction_gets_time_for_all_its_cases() -> None:
    plan = predict_plan(3)
    assert prediction_needs([], plan, 5, 8000) == Needs(8000, 720)
    assert prediction_needs([LARGE] * 10, plan, 1, 8000).minutes == 720
    assert prediction_needs([LARGE] * 200, plan, 5, 8000).minutes == ceil(200 * (2 + 5 * 6 * 131.072) / 60)
    assert prediction_needs([MEGAVOXEL] * 1000, plan, 1, 8000, on_cpu=True).minutes == ceil(1000 * 62 / 60)


# --- label maps and ensembles -----------------------------------------------------------------------------------------


def test_label_maps_count_by_voxels_whatever_the_channels() -> None:
    cases = [replace(LARGE, channels=4), MEGAVOXEL]
    assert evaluation_needs(cases, 1) == Needs(800 + ceil(16 * 131.072), 120)
    assert evaluation_needs(cases, 4).memory_mb == 800 + 4 * ceil(16 * 131.072)
    assert evaluation_needs([], 4) == Needs(800, 120)
    assert evaluation_needs([LARGE] * 5000, 4).minutes == ceil(5000 * (2 + 13.1072) / 60 / 4)


def test_an_ensemble_of_many_classes_holds_ranges_of_planes() -> None:
    """131 million voxels and 118 classes at full size would be 62 GB a member."""
    plane_mb = 4 * 118 * 512 * 512 / 1e6
    needs = ensemble_needs([LARGE], [predict_plan(118)] * 2, 1)
    assert needs.memory_mb == 800 + ceil(16 * 131.072) + ceil(20 * plane_mb) < 6000
    assert ensemble_needs([LARGE], [predict_plan(118)] * 2, 4).memory_mb == 800 + 4 * (needs.memory_mb - 800)
    finer = ensemble_needs([LARGE], [predict_plan(118), predict_plan(118, (1, 0.5, 0.5))], 1)
    assert finer.memory_mb == 800 + ceil(16 * 131.072) + ceil(80 * plane_mb), "the stored planes are larger"
    few = ensemble_needs([MEGAVOXEL], [predict_plan(3)] * 2, 1)
    assert few == Needs(800 + 16 + ceil(80 * 2**22 / 1e6), 240), "a range of several planes"
    assert ensemble_needs([LARGE] * 100, [predict_plan(118)] * 2, 1).minutes == ceil(100 * (2 + 6 * 131.072) / 60)


def test_finishing_reads_probabilities_only_where_it_must() -> None:
    cases, plan = [MEGAVOXEL], predict_plan(5)
    ranges = ceil(80 * 2**22 / 1e6)
    assert finishing_needs(cases, [], False, 1) == Needs(800 + 30, 240)
    assert finishing_needs(cases, [plan] * 2, False, 1) == Needs(800 + 30 + ranges, 240)
    assert finishing_needs(cases, [plan], True, 2) == Needs(800 + 2 * (30 + ranges + 3 * 4 * 5), 240)
    assert finishing_needs(cases * 5000, [plan], True, 1).minutes == ceil(5000 * (2 + 0.5 + 0.05 * 5 + 0.2 * 5) / 60)


def test_threads_are_as_many_as_have_room_for_their_cases() -> None:
    picture = [case((1, 20_000, 20_000), channels=3)]
    assert case_threads(lambda threads: evaluation_needs([LARGE], threads)) == 4
    assert case_threads(lambda threads: postprocessing_needs([LARGE], labels_of(3), threads)) == 3
    assert case_threads(lambda threads: evaluation_needs(picture, threads)) == 2
    assert case_threads(lambda threads: finishing_needs([LARGE], [predict_plan(118)], True, threads)) == 1
    assert case_threads(lambda threads: Needs(16_000 if threads < 4 else 16_001, 240)) == 3


def test_choosing_the_postprocessing_keeps_something_of_every_case() -> None:
    labels = labels_of(118)
    with_ignore = Labels((*labels.entries, ("ignore", 118)))
    nothing = np.zeros((1, 1, 1), np.uint8)
    assert joint_histogram(nothing, nothing, with_ignore).shape == (120, 120)
    assert postprocessing_needs([LARGE], labels_of(3), 1).memory_mb == 800 + ceil(30 * 131.072) + 6
    for given, values in ((labels, 119), (with_ignore, 120)):
        kept_mb = 5000 * (0.04 * 131.072 + 24e-6 * values**2)
        assert postprocessing_needs([LARGE] * 5000, given, 1).memory_mb == 800 + ceil(30 * 131.072) + ceil(kept_mb)
    assert postprocessing_needs([LARGE] * 4000, labels, 4).minutes == ceil(4000 * (2 + 65.536) / 60 / 4)


def test_a_report_reads_the_largest_image() -> None:
    assert report_needs([MEGAVOXEL], labels_of(3)) == Needs(3000, 60)
    four_channels = [MEGAVOXEL, replace(LARGE, channels=4)]  # 2.1 GB
    assert report_needs(four_channels, labels_of(118)) == Needs(1900 + ceil(12 * 4 * 131.072), 60 + 824)


# --- against what is really needed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "predict_fold", "predict_test", "ensemble", "postprocessing", "finish", "summary"),
    [(3, 1013, 611, 423, 267, 249, 161), (12, 1489, 1376, 412, 285, 245, 162), (40, 2843, 2694, 378, 297, 370, 162)],
)
def test_what_was_measured_is_less_than_is_asked_for(
    classes: int, predict_fold: int, predict_test: int, ensemble: int, postprocessing: int, finish: int, summary: int
) -> None:
    """Peaks in MB of the acceptance run "memory, large images", whose Snakemake is another process."""
    plan, tests = predict_plan(classes), [case((128, 200, 200))]
    cases = tests * 4
    program_mb = 1100  # with torch and a tiny network
    asked = [
        prediction_needs(cases[:2], plan, 1, program_mb).memory_mb,
        prediction_needs(tests, plan, 2, program_mb).memory_mb,
        ensemble_needs(cases, [plan] * 2, 1).memory_mb - resources.SNAKEMAKE_MB,
        postprocessing_needs(cases, plan.labels, 1).memory_mb - resources.SNAKEMAKE_MB,
        finishing_needs(tests, [plan] * 2, False, 1).memory_mb - resources.SNAKEMAKE_MB,
        evaluation_needs(cases, 1).memory_mb - resources.SNAKEMAKE_MB,
    ]
    measured = [predict_fold, predict_test, ensemble, postprocessing, finish, summary]
    assert all(peak_mb < asked_mb for peak_mb, asked_mb in zip(measured, asked, strict=True)), asked


@pytest.mark.parametrize(
    ("classes", "shape", "spacing"),
    [(40, (8, 160, 160), (1, 1, 1)), (40, (3, 340, 340), (1, 1, 1)), (3, (10, 200, 200), (1, 2, 2))],
)
def test_averaging_takes_less_than_is_asked_for(
    tmp_path: Path, classes: int, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    """Of several planes a range, of one plane a range, and of stored planes four times the raw ones."""
    plan = predict_plan(classes)
    geometry = Geometry(shape, spacing, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    z, y, x = ((0, edge) for edge in shape)
    properties = plan_geometry(geometry, (z, y, x), plan.preprocess)
    files = [tmp_path / "first", tmp_path / "second"]
    scores_czyx = np.zeros((classes, *properties.shape), np.float32)
    for path in files:
        write_probabilities(path, scores_czyx, properties, plan)
    del scores_czyx
    needs = ensemble_needs([case(shape, spacing)], [plan] * 2, 1)
    averaging_mb = peak_mb(lambda: mean_labels([ProbabilityFile(path) for path in files]))
    assert 0.2 * (needs.memory_mb - 800) < averaging_mb < needs.memory_mb - 800
    saving = finishing_needs([case(shape, spacing)], [plan], True, 1)

    def save() -> None:
        mean = mean_probabilities([ProbabilityFile(files[0])])
        mean_labels([ProbabilityFile(files[0])], mean)
        write_npz(tmp_path / "case.npz", mean)

    assert peak_mb(save) < saving.memory_mb - 800


def peak_mb(work: Any) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_ranges_are_those_of_the_interpolation() -> None:
    assert interpolation._SLAB_VALUES == resources.RANGE_VALUES
