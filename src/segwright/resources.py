"""What jobs ask for, memory and time, from what inspection has recorded of their cases (``resources:`` of the rules).

Everything leans upwards: a job that asks for too much waits a little longer, one that asks for too little is ended.
Snakemake asks for every job on the machine its user sits at, so no image is read, and a record only once.
A megabyte is 10^6 bytes. What trainings ask for is in ``training/host_memory.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from pathlib import Path
from typing import Any

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json
from segwright.core.labels import Labels
from segwright.core.slices import PredictPlan, PreprocessPlan

SNAKEMAKE_MB = 400
"""Under a scheduler two Snakemakes stand around each script, and their memory counts as the job's."""

CASE_THREADS, CASES_MB = 4, 16_000
"""Most threads of a job that goes through label maps, one case a thread, and what they may need together."""

RANGE_VALUES = 1 << 22
"""Probabilities are averaged in ranges of planes: of as many values, or one plane (``inference/interpolation.py``)."""

_PROGRAM_MB = 400  # interpreter and libraries, without torch, with room
_REPORT_MB = 1500  # with the libraries that draw
_FILE_GROWTH = 25  # from the compressed files of a case to its inspection: channels as float32, twice, and their values
_EVALUATED_BYTES = 16  # a voxel of two label maps that may be stored as float64
_POSTPROCESSED_BYTES = 30  # a voxel of label maps, masks, components and their counts
_EXPORTED_BYTES = 8  # a voxel of label maps on the stored grid, and on the raw one, while they are written
_RANGES = 20  # arrays of a range while it is averaged: of two members scores, interpolated ones, exponentials, the mean
_KEPT_BYTES = 0.04  # a voxel of two label maps, compressed
_KEPT_TABLES = 3  # of counts by (reference, predicted) label: before and after the rule that is tried, and one to spare

# Seconds a million voxels take on one slow core: several times what was measured (benchmarks/results/speed.md).
_CASE_S = 2.0  # whatever its size
_INSPECTION_S_MB = 0.3  # a megabyte of files
_PREPROCESSING_S = 0.5  # a channel
_PREDICTION_S, _PREDICTION_ON_CPU_S = 6.0, 60.0  # a model; eight flips and tiles that overlap by half
_EVALUATION_S, _POSTPROCESSING_S = 0.1, 0.5
_AVERAGING_S, _COMPRESSING_S = 0.05, 0.2  # an output
_PICTURES_S = 0.2  # a megabyte of the image and structure


@dataclass(frozen=True)
class Needs:
    """Memory (MB) and time limit of a job."""

    memory_mb: int
    minutes: int


@dataclass(frozen=True)
class CaseSize:
    """A case as its image files have it; ``spacing_zyx`` in millimetres."""

    channels: int
    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]

    @property
    def voxels(self) -> int:
        return prod(self.shape_zyx)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> CaseSize:
        """From the record of a case whose image could be read."""
        z, y, x = record["geometry"]["shape_zyx"]
        dz, dy, dx = record["geometry"]["spacing_zyx"]
        return CaseSize(max(int(record["channels"]), 1), (z, y, x), (dz, dy, dx))


def read_case_sizes(records: Iterable[Path | str]) -> dict[str, CaseSize]:
    """Sizes by case from those of the inspection records that exist by now.

    Damaged images are left out, and damaged records: an error here would end all jobs that run.
    """
    sizes: dict[str, CaseSize] = {}
    for path in map(Path, records):
        if path.is_file():
            facts = path.stat()
            with contextlib.suppress(DamagedFileError):  # whoever makes something of the record says so
                sizes.update(_sizes_in(path, facts.st_mtime_ns, facts.st_size))
    return sizes


@lru_cache(maxsize=4096)
def _sizes_in(path: Path, mtime_ns: int, size_bytes: int) -> dict[str, CaseSize]:
    """Read once in a process: a file that was made anew has another time or size."""
    return {
        case_id: CaseSize.from_json(record)
        for case_id, record in read_json(path)["cases"].items()
        if record.get("geometry")
    }


def inspection_needs(files_of_cases: Iterable[Sequence[Path | str]], workers: int) -> Needs:
    """Each worker is a process that holds all files of a case at a time. Missing files count nothing."""
    sizes_mb = [sum(_file_mb(path) for path in files) for files in files_of_cases]
    memory_mb = SNAKEMAKE_MB + workers * (_PROGRAM_MB + ceil(_FILE_GROWTH * max(sizes_mb, default=0)))
    return Needs(memory_mb, _minutes(120, (_CASE_S + _INSPECTION_S_MB * size_mb for size_mb in sizes_mb), workers))


def preprocessing_needs(cases: Collection[CaseSize], plan: PreprocessPlan, workers: int) -> Needs:
    """The largest case a worker."""
    from segwright.preprocessing.memory import PROGRAM_MB, estimate_memory_mb

    largest_mb = max(
        (estimate_memory_mb(case.shape_zyx, case.spacing_zyx, plan, case.channels) for case in cases),
        default=PROGRAM_MB,
    )
    seconds = (_CASE_S + _PREPROCESSING_S * case.channels * case.voxels / 1e6 for case in cases)
    return Needs(SNAKEMAKE_MB + workers * largest_mb, _minutes(240, seconds, workers))


def prediction_needs(
    cases: Collection[CaseSize], plan: PredictPlan, models: int, least_mb: int, on_cpu: bool = False
) -> Needs:
    """Beside the program and the network (``least_mb``) three cases at a time: one is prepared, one predicted, one
    exported. The latter two have scores on the stored grid, the second twice where models are averaged.
    """
    arrays = 2 if models == 1 else 3
    needed_mb = max((_prediction_mb(case, plan, arrays) for case in cases), default=0)
    pace_s = _PREDICTION_ON_CPU_S if on_cpu else _PREDICTION_S
    return Needs(least_mb + needed_mb, _minutes(720, _seconds(cases, pace_s * models)))


def case_threads(needs: Callable[[int], Needs]) -> int:
    """As many threads, at most four, as need no more than 16 GB; at least one. Results do not depend on it."""
    fitting = (threads for threads in range(CASE_THREADS, 1, -1) if needs(threads).memory_mb <= CASES_MB)
    return next(fitting, 1)


def evaluation_needs(cases: Collection[CaseSize], workers: int) -> Needs:
    """Two label maps a worker."""
    memory_mb = _largest_mb(cases, _EVALUATED_BYTES, workers)
    return Needs(memory_mb, _minutes(120, _seconds(cases, _EVALUATION_S), workers))


def ensemble_needs(cases: Collection[CaseSize], members: Sequence[PredictPlan], workers: int) -> Needs:
    """Probabilities are averaged range by range, and the label maps evaluated."""
    memory_mb = _largest_mb(cases, _EVALUATED_BYTES, workers) + workers * _averaging_mb(cases, members)
    pace_s = _EVALUATION_S + _AVERAGING_S * _outputs(members)
    return Needs(memory_mb, _minutes(240, _seconds(cases, pace_s), workers))


def postprocessing_needs(cases: Collection[CaseSize], labels: Labels, workers: int) -> Needs:
    """One case a worker, and of every case its label maps, compressed, with tables of counts."""
    values = len(labels.declared_labels) + 1
    kept_bytes = sum(_KEPT_BYTES * case.voxels + _KEPT_TABLES * 8 * values**2 for case in cases)
    memory_mb = _largest_mb(cases, _POSTPROCESSED_BYTES, workers) + ceil(kept_bytes / 1e6)
    return Needs(memory_mb, _minutes(240, _seconds(cases, _POSTPROCESSING_S), workers))


def finishing_needs(
    cases: Collection[CaseSize], averaged: Sequence[PredictPlan], save_probabilities: bool, workers: int
) -> Needs:
    """Label maps are postprocessed; before, probabilities are averaged if there are any.

    Args:
        averaged: the members whose probabilities are read; empty: one member, whose label maps are there.
        save_probabilities: all outputs at full size, on the cropped grid, on the raw one and with its axes.
    """
    memory_mb = _largest_mb(cases, _POSTPROCESSED_BYTES, workers) + workers * _averaging_mb(cases, averaged)
    pace_s = _POSTPROCESSING_S + _AVERAGING_S * _outputs(averaged)
    if save_probabilities:
        saved_bytes = 3 * 4 * _outputs(averaged) * max((case.voxels for case in cases), default=0)
        memory_mb += workers * ceil(saved_bytes / 1e6)
        pace_s += _COMPRESSING_S * _outputs(averaged)
    return Needs(memory_mb, _minutes(240, _seconds(cases, pace_s), workers))


def report_needs(cases: Iterable[CaseSize], labels: Labels) -> Needs:
    """The worst cases as pictures, three a structure: one image at a time, its label maps, and what reading takes."""
    image_mb = max((4e-6 * case.channels * case.voxels for case in cases), default=0.0)
    memory_mb = max(3000, SNAKEMAKE_MB + _REPORT_MB + ceil(3 * image_mb))
    return Needs(memory_mb, 60 + int(_PICTURES_S * labels.num_outputs * image_mb / 60))


def _largest_mb(cases: Collection[CaseSize], bytes_a_voxel: int, workers: int) -> int:
    """A job whose workers, threads, hold one case each."""
    largest = max((case.voxels for case in cases), default=0)
    return SNAKEMAKE_MB + _PROGRAM_MB + workers * ceil(bytes_a_voxel * largest / 1e6)


def _prediction_mb(case: CaseSize, plan: PredictPlan, score_arrays: int) -> int:
    """Image and scores of a case, scores and label maps of the one before, and what preparing the next one takes."""
    from segwright.preprocessing.memory import PROGRAM_MB, estimate_memory_mb, stored_shape

    stored_voxels = prod(stored_shape(case.shape_zyx, case.spacing_zyx, plan.preprocess))
    scores_bytes = score_arrays * 4 * plan.labels.num_outputs * stored_voxels
    others_bytes = (4 * case.channels + _EXPORTED_BYTES) * stored_voxels + _EXPORTED_BYTES * case.voxels
    preparing_mb = estimate_memory_mb(case.shape_zyx, case.spacing_zyx, plan.preprocess, case.channels) - PROGRAM_MB
    return preparing_mb + ceil((scores_bytes + others_bytes) / 1e6)


def _averaging_mb(cases: Collection[CaseSize], members: Sequence[PredictPlan]) -> int:
    """Ranges of the largest planes, those of the raw or of a stored grid."""
    from segwright.preprocessing.memory import stored_shape

    if not members:
        return 0
    plane_voxels = 0
    for plan in members:
        for case in cases:
            raw = [case.shape_zyx[axis] for axis in plan.preprocess.transpose_forward]
            stored = stored_shape(case.shape_zyx, case.spacing_zyx, plan.preprocess)
            plane_voxels = max(plane_voxels, prod(raw[1:]), prod(stored[1:]))
    return ceil(_RANGES * 4 * max(_outputs(members) * plane_voxels, RANGE_VALUES) / 1e6)


def _outputs(members: Sequence[PredictPlan]) -> int:
    return max((plan.labels.num_outputs for plan in members), default=0)


def _seconds(cases: Iterable[CaseSize], pace_s: float) -> Iterable[float]:
    """Of each case; ``pace_s`` seconds a million voxels."""
    return (_CASE_S + pace_s * case.voxels / 1e6 for case in cases)


def _minutes(least: int, seconds: Iterable[float], workers: int = 1) -> int:
    return max(least, ceil(sum(seconds) / 60 / workers))


def _file_mb(path: Path | str) -> float:
    path = Path(path)
    return path.stat().st_size / 1e6 if path.is_file() else 0.0
