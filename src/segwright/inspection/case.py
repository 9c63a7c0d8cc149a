"""Inspection of one case: each raw file is hashed once and decoded at most once.

Whatever is wrong with the case's data becomes a problem in its record; only bugs raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.cropping import Box, box_slices, nonzero_box
from segwright.core.dataset import Case, Dataset
from segwright.core.errors import SegwrightError
from segwright.core.files import file_digest, json_digest
from segwright.core.geometry import Agreement, compare_geometries
from segwright.core.versions import STAGE_VERSION
from segwright.images.image import Image, LabelMap
from segwright.images.readers import read_channels, read_label, sidecars
from segwright.inspection.contents import (
    count_labels,
    find_constant_channels,
    find_infinite_voxels,
    find_label_problems,
    pixel_digest,
)
from segwright.inspection.intensities import ValueCounts, count_values
from segwright.inspection.names import find_name_problems
from segwright.inspection.records import VERSION, CaseFingerprint, CaseRecord, Problem, Severity
from segwright.inspection.store import load_record, save_record


@dataclass(frozen=True)
class Expectations:
    """What dataset.json says about every case.

    Attributes:
        folder: the dataset folder, to which file names in records are relative.
        reader: name of the image reader.
        channel_names: declared channels, in order.
        declared_labels: allowed label values, ignore label included, sorted.
        foreground_labels: label values that are neither background nor ignore.
        file_ending: of all images and label maps.
        test: test images have no label map.
        listed: dataset.json names every file, so that channels go by their place there and not by their names.
    """

    folder: Path
    reader: str
    channel_names: tuple[str, ...]
    declared_labels: tuple[int, ...]
    foreground_labels: tuple[int, ...]
    file_ending: str
    test: bool = False
    listed: bool = False

    @staticmethod
    def of(dataset: Dataset, reader: str, *, test: bool = False) -> Expectations:
        return Expectations(
            folder=dataset.folder,
            reader=reader,
            channel_names=dataset.channel_names,
            declared_labels=dataset.labels.declared_labels,
            foreground_labels=dataset.labels.foreground_labels,
            file_ending=dataset.file_ending,
            test=test,
            listed="dataset" in dataset.description and not test,
        )

    def digest(self, case_id: str, files: Sequence[str]) -> str:
        """Digest of everything but the files' contents that a record depends on."""
        versions = [VERSION, STAGE_VERSION["inspection"]]
        return json_digest([
            versions, case_id, list(files), self.reader, len(self.channel_names), self.declared_labels, self.test,
            *(["listed"] if self.listed else []),
        ])  # fmt: skip


def inspect_case(case: Case, expected: Expectations, store: Path) -> CaseRecord:
    """Hash the case's files; re-use the stored record of equal files, or decode, check and count them.

    A record without errors is kept in ``store`` (see ``store.py``), together with its value counts.
    """
    problems = _Problems(case.case_id, expected.folder)
    find_name_problems(case.case_id, problems.add)
    blank = _hash_files(case, expected, problems)
    key = json_digest([blank.digest, expected.digest(case.case_id, (*blank.image_files, str(blank.label_file)))])
    known = None if problems.has_errors else load_record(store, case.case_id, key)
    if known is not None:
        return known
    images = _read_images(case, expected.reader, problems)
    label = _read_label(case, expected, problems)
    _check_channels(case, images, blank.image_digests, expected, problems)
    _check_grids(images, case, label, problems)
    for file, image in dict(images).items():
        find_infinite_voxels(image.array_czyx, file, problems.add)
    nothing_to_see = label is not None and not label.array_zyx.any()
    find_constant_channels(images, problems.add, may_be_constant=expected.test or nothing_to_see)
    record = replace(blank, **_stored_facts(case, images))
    counts: list[ValueCounts] = []
    if label is not None and case.label_file is not None:
        voxels = count_labels(label.array_zyx)
        record = replace(record, label_voxels=voxels)
        find_label_problems(voxels, expected.declared_labels, expected.foreground_labels, case.label_file, problems.add)
        if not problems.has_errors:
            fingerprint, counts = _fingerprint([image for _, image in images], label, case, problems)
            record = replace(record, fingerprint=fingerprint)
    record = replace(record, problems=tuple(problems.found))
    return record if record.has_errors else save_record(store, record, key, counts)


class _Problems:
    """Collects the problems of one case; paths in messages become relative to the dataset folder."""

    def __init__(self, case_id: str, folder: Path) -> None:
        self.found: list[Problem] = []
        self._case_id, self._folder = case_id, folder

    @property
    def has_errors(self) -> bool:
        return any(problem.severity == "error" for problem in self.found)

    def add(self, severity: Severity, code: str, file: Path | None, message: str, remedy: str) -> None:
        name = "" if file is None else name_in_dataset(file, self._folder)
        self.found.append(Problem(severity, code, self._case_id, name, message, remedy))

    def add_failure(self, code: str, file: Path, error: Exception) -> None:
        """A reader's message "path: what is wrong; what to do", or the system's complaint about a file."""
        if isinstance(error, OSError):
            self.add("error", code, file, f"cannot be read ({error.strerror})", "check its permissions and the disk")
            return
        text = str(error).removeprefix(f"{file}: ").replace(f"{self._folder}/", "")
        message, separator, remedy = text.rpartition("; ")
        if not separator:
            message, remedy = text, "copy it again from its source"
        self.add("error", code, file, message, remedy)


def name_in_dataset(file: Path, folder: Path) -> str:
    """Name of a file relative to the dataset folder, or as it is if it lies elsewhere."""
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _hash_files(case: Case, expected: Expectations, problems: _Problems) -> CaseRecord:
    """A record that only names the files and their digests."""
    label_file = None if expected.test else case.label_file
    files = [*case.image_files, *([] if label_file is None else [label_file])]
    digests = []
    for file in files:
        try:
            digests.append(file_digest(file))
        except OSError:  # the reader below says what is wrong with it
            digests.append("")
    everything = list(digests)
    for sidecar in sidecars(case.image_files, label_file, expected.reader):
        everything.append(file_digest(sidecar) if sidecar.is_file() else "")
        if not sidecar.is_file():
            message = "the file with the voxel spacing is missing, so 1 x 1 x 1 is assumed"
            problems.add("warning", "spacing_missing", sidecar, message, 'write {"spacing": [z, y, x]} into it')
    n_images = len(case.image_files)
    return CaseRecord(
        case_id=case.case_id,
        image_files=tuple(name_in_dataset(file, expected.folder) for file in case.image_files),
        label_file=None if label_file is None else name_in_dataset(label_file, expected.folder),
        image_digests=tuple(digests[:n_images]),
        label_digest=None if label_file is None else digests[-1],
        digest=json_digest(everything),
    )


def _read_images(case: Case, reader: str, problems: _Problems) -> list[tuple[Path, Image]]:
    """Every readable channel file, in channel order; the others become problems.

    A dataset.json may list a file as several channels, to be normalised in several ways; it is read once.
    """
    images: dict[Path, Image] = {}
    for file in dict.fromkeys(case.image_files):
        try:
            images[file] = read_channels([file], reader)[0]
        except (SegwrightError, OSError) as error:
            problems.add_failure("image_unreadable", file, error)
    return [(file, images[file]) for file in case.image_files if file in images]


def _read_label(case: Case, expected: Expectations, problems: _Problems) -> LabelMap | None:
    if expected.test:
        return None
    if case.label_file is None:
        file = expected.folder / "labelsTr" / f"{case.case_id}{expected.file_ending}"
        problems.add("error", "label_missing", file, "the label map is missing", "put it there, or remove the image")
        return None
    try:
        return read_label(case.label_file, expected.reader)
    except (SegwrightError, OSError) as error:
        problems.add_failure("label_unreadable", case.label_file, error)
        return None


def _stored_facts(case: Case, images: Sequence[tuple[Path, Image]]) -> dict[str, Any]:
    """Fields of the record that come from decoded images."""
    if not images:
        return {}
    kinds = {image.stored_dtype for _, image in images}
    complete = len(images) == len(case.image_files)
    return {
        "channels": sum(len(image.array_czyx) for _, image in images),
        "geometry": images[0][1].geometry,
        "stored_dtype": kinds.pop() if len(kinds) == 1 else "mixed",
        "pixel_digest": pixel_digest([image.array_czyx for _, image in images]) if complete else None,
    }


def _check_channels(
    case: Case,
    images: Sequence[tuple[Path, Image]],
    digests: Sequence[str],
    expected: Expectations,
    problems: _Problems,
) -> None:
    """As many channels as declared (method 1.5 point 7), numbered from 0000; one a file, or one file with all."""
    declared, n_files = len(expected.channel_names), len(case.image_files)
    holding_several = [(file, len(image.array_czyx)) for file, image in images if len(image.array_czyx) > 1]
    found = sum(len(image.array_czyx) for _, image in images) + n_files - len(images)
    wanted = f"dataset.json declares {declared} ({', '.join(expected.channel_names)})"
    if holding_several and (n_files > 1 or found != declared):
        file, several = holding_several[0]
        message = f"the file holds {several} channels (it is 4-D or in colour)"
        wanted = wanted if n_files == 1 else f"the case has {n_files} channel files"
        problems.add("error", "channel_count", file, f"{message} but {wanted}", "split it into one 3-D file a channel")
    elif found != declared:
        names = ", ".join(file.name for file in case.image_files)
        message = f"there {'is 1 channel' if found == 1 else f'are {found} channels'} ({names}) but {wanted}"
        problems.add("error", "channel_count", None, message, "add or remove channel files, or correct channel_names")
    for position, (file, digest) in enumerate(zip(case.image_files, digests, strict=True)):
        if digest and digest in digests[:position]:
            message = f"is the same file as {case.image_files[digests.index(digest)].name}"
            problems.add(
                "warning", "channel_repeated", file, message, "put the right channel there, if that is a mistake"
            )
    if expected.listed:
        return
    numbers = [int(file.name.removesuffix(expected.file_ending)[-4:]) for file in case.image_files]
    if numbers != list(range(n_files)):
        missing = min(set(range(n_files)) - set(numbers))
        message = f"channel {missing:04d} is missing (there are {', '.join(f'{number:04d}' for number in numbers)})"
        problems.add("error", "channel_numbers", None, message, "add the channel, or number the files from 0000")


def _check_grids(images: Sequence[tuple[Path, Image]], case: Case, label: LabelMap | None, problems: _Problems) -> None:
    """Compare further channels and the label map with the first channel (method 1.5 point 7).

    Within tolerance nothing is said: the first channel's grid is used for all.
    """
    if not images:
        return
    (first, reference), *others = [(file, image.geometry) for file, image in images]
    grids = [("channel", file, geometry) for file, geometry in others]
    if label is not None and case.label_file is not None:
        grids.append(("label map", case.label_file, label.geometry))
    for kind, file, geometry in grids:
        agreement, difference = compare_geometries(reference, geometry)
        if agreement is Agreement.WRONG:
            message = f"the {kind} is not on the grid of {first.name}: {difference} here"
            problems.add("error", "grid_differs", file, message, f"resample the {kind} to that grid")
        elif agreement is Agreement.SAME_GRID:
            message = f"slightly different header than {first.name}: {difference} here"
            problems.add(
                "warning", "header_differs", file, message, f"{first.name} decides; correct it if that is wrong"
            )


def _fingerprint(
    images: Sequence[Image], label: LabelMap, case: Case, problems: _Problems
) -> tuple[CaseFingerprint, list[ValueCounts]]:
    """Crop to non-zero and count the values of foreground voxels, label > 0 with the ignore label (method 2.1, 2.2)."""
    geometry = images[0].geometry
    slices = box_slices(_common_box(images))
    foreground_zyx: NDArray[np.bool_] = label.array_zyx > 0
    cropped_zyx = foreground_zyx[slices]
    counts = [count_values(channel_zyx[slices][cropped_zyx]) for image in images for channel_zyx in image.array_czyx]
    z, y, x = cropped_zyx.shape
    voxels = int(np.count_nonzero(cropped_zyx))
    lost = int(np.count_nonzero(foreground_zyx)) - voxels
    if lost:
        message = f"{lost} labelled voxels lie in the zero border that is cropped away, so they cannot be learnt"
        problems.add(
            "warning", "label_outside", case.label_file, message, "check that image and label map belong together"
        )
    fingerprint = CaseFingerprint(
        shape_after_crop=(z, y, x),
        spacing_mm=geometry.spacing_zyx,
        relative_size_after_cropping=z * y * x / foreground_zyx.size,
        foreground_voxels=voxels,
        intensities=tuple(count.summary for count in counts),
    )
    return fingerprint, counts


def _common_box(images: Sequence[Image]) -> Box:
    """:func:`nonzero_box` of all images' channels together, without stacking them."""
    boxes = [nonzero_box(image.array_czyx) for image in images if image.array_czyx.any()]
    if not boxes:
        return nonzero_box(images[0].array_czyx)
    z, y, x = ((min(low for low, _ in ends), max(high for _, high in ends)) for ends in zip(*boxes, strict=True))
    return z, y, x
