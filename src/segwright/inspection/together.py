"""Problems that only show when all cases and folders of a dataset are seen together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segwright.core.dataset import Dataset
from segwright.core.labels import Labels
from segwright.inspection.names import clashing_names
from segwright.inspection.records import CaseRecord, Problem, Severity


def find_file_problems(dataset: Dataset) -> list[Problem]:
    """What the folder listing alone tells: number of cases, files that nobody reads, names that clash."""
    return [*_count_problems(dataset), *_stray_files(dataset), *_name_clashes(dataset)]


def find_unseen_labels(records: Iterable[CaseRecord], labels: Labels) -> list[Problem]:
    seen = {value for record in records for value in record.label_voxels or {}}
    problems = []
    for value in labels.foreground_labels:
        if seen and value not in seen:
            message = f"label {value} ({labels.name_of(value)}) is in no training case, so it cannot be learnt"
            problems.append(
                Problem("warning", "label_unseen", "", "dataset.json", message, "remove it from `labels`, or add cases")
            )
    return problems


def find_mixed_dimensions(records: Mapping[str, CaseRecord]) -> list[Problem]:
    flat = [case_id for case_id, record in records.items() if record.geometry and record.geometry.dimension == 2]
    solid = [case_id for case_id, record in records.items() if record.geometry and record.geometry.dimension == 3]
    if not flat or not solid:
        return []
    few, other = (
        (flat, "2-D images among 3-D ones") if len(flat) <= len(solid) else (solid, "3-D images among 2-D ones")
    )
    message = f"{other}: {', '.join(few[:5])}{', ...' if len(few) > 5 else ''}"
    return [Problem("warning", "mixed_dimensions", few[0], "", message, "make separate datasets of them")]


def equal_images(records: Mapping[str, CaseRecord]) -> list[tuple[str, ...]]:
    """Groups of cases with the same voxels, sorted."""
    groups: dict[str, list[str]] = {}
    for case_id, record in records.items():
        if record.pixel_digest is not None and not _is_constant(record):
            groups.setdefault(record.pixel_digest, []).append(case_id)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def find_duplicates(
    duplicates: Iterable[tuple[str, ...]], records: Mapping[str, CaseRecord], test_records: Mapping[str, CaseRecord]
) -> list[Problem]:
    problems = []
    for first, *copies in duplicates:
        for case_id in copies:
            message = f"is the same image as training case {first}"
            remedy = "remove one of them if that is a mistake; they are kept in one fold"
            problems.append(Problem("warning", "duplicate", case_id, records[case_id].image_files[0], message, remedy))
    training = {
        record.pixel_digest: case_id for case_id, record in sorted(records.items(), reverse=True) if record.pixel_digest
    }
    for case_id, record in test_records.items():
        if record.pixel_digest in training:
            message = f"test image: is the same image as training case {training[record.pixel_digest]}"
            remedy = "remove one of them: results on it say nothing about new images"
            problems.append(Problem("warning", "duplicate_test", case_id, record.image_files[0], message, remedy))
    return problems


def _count_problems(dataset: Dataset) -> list[Problem]:
    """Method 1.5 point 3."""
    found = len(dataset.training)
    if found == dataset.num_training and found:
        return []
    examples = ", ".join(case.case_id for case in dataset.training[:3])
    there = f"{found} ({examples}{', ...' if found > 3 else ''})" if found else "none"
    message = f"numTraining is {dataset.num_training} but the training cases found are {there}"
    remedy = f"correct numTraining, or add the missing files (file ending {dataset.file_ending})"
    return [Problem("error", "case_count", "", "dataset.json", message, remedy)]


def _stray_files(dataset: Dataset) -> list[Problem]:
    """Files nobody will read: images without channel number or with another ending, label maps without image."""
    if "dataset" in dataset.description:
        return []
    problems = []
    for folder, cases in (("imagesTr", dataset.training), ("imagesTs", dataset.test)):
        used = {file.name for case in cases for file in case.image_files} | {f"{case.case_id}.json" for case in cases}
        for name in _other_files(dataset.folder / folder, used):
            message = f"is not read: its name is not <case>_<four-digit channel>{dataset.file_ending}"
            problems.append(
                Problem("warning", "file_unused", "", f"{folder}/{name}", message, "rename it, or move it elsewhere")
            )
    known = {case.case_id for case in dataset.training}
    labels = {f"{case_id}{ending}" for case_id in known for ending in (dataset.file_ending, ".json")}
    for name in _other_files(dataset.folder / "labelsTr", labels):
        message = "is not read: there is no training image of this case"
        remedy = "add the image to imagesTr, or move the label map elsewhere"
        problems.append(Problem("warning", "label_unused", "", f"labelsTr/{name}", message, remedy))
    return problems


def _other_files(folder: Path, used: set[str]) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name not in used and not path.name.startswith("."))


def _name_clashes(dataset: Dataset) -> list[Problem]:
    severities: dict[str, Severity] = {"training": "error", "test": "warning"}  # test images never stop a training
    problems = []
    for kind, cases in (("training", dataset.training), ("test", dataset.test)):
        for group in clashing_names(case.case_id for case in cases):
            message = f"the names of the {kind} cases {', '.join(group)} are one and the same on many file systems"
            remedy = "rename all but one of them"
            problems.append(Problem(severities[kind], "name_clash", group[0], "", message, remedy))
    return problems


def _is_constant(record: CaseRecord) -> bool:
    return any(problem.code == "constant" and problem.severity == "error" for problem in record.problems)
