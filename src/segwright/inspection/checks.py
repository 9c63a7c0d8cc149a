"""All problems of a dataset at once: those of its cases, and those that only show when cases are seen together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segwright.core.dataset import Dataset
from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import read_json, write_text
from segwright.inspection.records import Problem, compact_json, read_batches
from segwright.inspection.together import (
    equal_images,
    find_duplicates,
    find_file_problems,
    find_mixed_dimensions,
    find_unseen_labels,
)

log = logging.getLogger(__name__)

_TABLE_COLUMNS = ("severity", "code", "case", "file", "message", "remedy")
_SHOWN_WARNINGS = 20


@dataclass(frozen=True)
class Checks:
    """The content of checks.json.

    Attributes:
        dataset: name of the dataset.
        reader: image reader, as the plans store it.
        cases: training cases, sorted.
        problems: errors first, then by case.
        duplicates: groups of training cases with equal voxels.
    """

    dataset: str
    reader: str
    cases: tuple[str, ...]
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[str, ...], ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def duplicate_of(self) -> dict[str, str]:
        """Every training case that has a copy -> the first case of its group; what ``make_splits`` takes."""
        return {case_id: group[0] for group in self.duplicates for case_id in group}

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "reader": self.reader,
            "valid": not self.errors,
            "cases": list(self.cases),
            "problems": [problem.to_json() for problem in self.problems],
            "duplicates": [list(group) for group in self.duplicates],
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Checks:
        return Checks(
            dataset=str(record["dataset"]),
            reader=str(record["reader"]),
            cases=tuple(map(str, record["cases"])),
            problems=tuple(Problem.from_json(problem) for problem in record["problems"]),
            duplicates=tuple(tuple(map(str, group)) for group in record["duplicates"]),
        )


def collect_checks(batch_files: Sequence[Path], dataset: Dataset, test_batch_files: Sequence[Path] = ()) -> Checks:
    """All problems of the batches and of the dataset as a whole. Never raises for bad data.

    Problems of test images are warnings here: they stop the prediction of that image, not the training.

    Raises:
        DamagedFileError: a batch file is missing or damaged.
        DatasetError: a training case of the dataset is in none of the batches.
    """
    reader, records = read_batches(batch_files)
    _, test_records = read_batches(test_batch_files)
    missing = sorted({case.case_id for case in dataset.training} - records.keys())
    if missing:
        raise DatasetError(f"{dataset.folder}: case {missing[0]} was not inspected; run inspection again")
    problems = [problem for record in records.values() for problem in record.problems]
    for record in test_records.values():
        problems.extend(_as_warning(problem) for problem in record.problems)
    problems.extend(find_file_problems(dataset))
    problems.extend(find_unseen_labels(records.values(), dataset.labels))
    problems.extend(find_mixed_dimensions(records))
    duplicates = equal_images(records)
    problems.extend(find_duplicates(duplicates, records, test_records))
    problems.sort(key=lambda problem: (problem.severity, problem.case, problem.file, problem.code, problem.message))
    return Checks(dataset.name, reader, tuple(sorted(records)), tuple(problems), tuple(duplicates))


def write_checks(checks: Checks, json_path: Path, tsv_path: Path) -> None:
    """Write the same problems for programs and, one a line, for people."""
    lines = ["\t".join(_TABLE_COLUMNS)]
    for problem in checks.problems:
        cells = (str(getattr(problem, column)) for column in _TABLE_COLUMNS)
        lines.append("\t".join(" ".join(cell.split()) for cell in cells))
    write_text(tsv_path, "\n".join(lines) + "\n")
    write_text(json_path, compact_json(checks.to_json()))


def read_checks(path: Path) -> Checks:
    """Read checks.json.

    Raises:
        DamagedFileError: it is missing or no such file.
    """
    try:
        return Checks.from_json(read_json(path))
    except MALFORMED as error:
        raise DamagedFileError(path, f"not a checks file ({brief(repr(error))})") from error


def require_valid(checks: Checks) -> None:
    """Log the warnings; stop if there are errors.

    Raises:
        DatasetError: all errors, one a line: case, file, what is wrong, what to do.
    """
    for problem in checks.warnings[:_SHOWN_WARNINGS]:
        log.warning("%s", problem.text)
    if len(checks.warnings) > _SHOWN_WARNINGS:
        log.warning("... and %d more warnings in checks.tsv", len(checks.warnings) - _SHOWN_WARNINGS)
    if checks.errors:
        count = "1 error" if len(checks.errors) == 1 else f"{len(checks.errors)} errors"
        lines = "\n".join(f"  {problem.text}" for problem in checks.errors)
        raise DatasetError(
            f"{checks.dataset}: {count} in the data (also in checks.tsv); correct them and run again\n{lines}"
        )


def _as_warning(problem: Problem) -> Problem:
    return replace(problem, severity="warning", message=f"test image: {problem.message}")
