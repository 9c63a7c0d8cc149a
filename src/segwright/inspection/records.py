"""What inspection knows about a case, and the batch file that holds it.

A record depends on the files of its own case and on what dataset.json declares, never on other cases, so records
of different batches (or sites) are merged by putting them together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import json_text, read_json, with_seal, write_text
from segwright.core.geometry import Geometry

VERSION = 1
"""Raised when the content of a record changes for equal input; older records are then made again."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a case (``case`` empty: with the dataset). ``file`` is relative to the dataset folder."""

    severity: Severity
    code: str
    case: str
    file: str
    message: str
    remedy: str

    @property
    def text(self) -> str:
        """One line: case, file, what is wrong, what to do."""
        place = ": ".join(part for part in (self.case, self.file) if part)
        return f"{place}: {self.message}; {self.remedy}" if place else f"{self.message}; {self.remedy}"

    def to_json(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Problem:
        return Problem(**{name: str(record[name]) for name in Problem.__dataclass_fields__})  # type: ignore[arg-type]


class AddProblem(Protocol):
    """Where checks of one case tell what they find; ``file`` as it was opened, None: the case as a whole."""

    def __call__(self, severity: Severity, code: str, file: Path | None, message: str, remedy: str) -> None: ...


@dataclass(frozen=True)
class Intensities:
    """Foreground intensities of one channel of one case, float64 moments of the float32 voxels.

    ``sketched`` tells that the side file holds groups of voxels instead of every value with its count.
    """

    voxels: int
    mean: float
    variance: float
    minimum: float
    maximum: float
    sketched: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Intensities:
        return Intensities(
            voxels=int(record["voxels"]),
            mean=float(record["mean"]),
            variance=float(record["variance"]),
            minimum=float(record["minimum"]),
            maximum=float(record["maximum"]),
            sketched=bool(record["sketched"]),
        )


@dataclass(frozen=True)
class CaseFingerprint:
    """A case's share in the dataset fingerprint; axes in the order of the stored image (method 2.2)."""

    shape_after_crop: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    relative_size_after_cropping: float
    foreground_voxels: int
    intensities: tuple[Intensities, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "shape_after_crop": list(self.shape_after_crop),
            "spacing_mm": list(self.spacing_mm),
            "relative_size_after_cropping": self.relative_size_after_cropping,
            "foreground_voxels": self.foreground_voxels,
            "intensities": [channel.to_json() for channel in self.intensities],
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> CaseFingerprint:
        z, y, x = (int(edge) for edge in record["shape_after_crop"])
        dz, dy, dx = (float(edge) for edge in record["spacing_mm"])
        return CaseFingerprint(
            shape_after_crop=(z, y, x),
            spacing_mm=(dz, dy, dx),
            relative_size_after_cropping=float(record["relative_size_after_cropping"]),
            foreground_voxels=int(record["foreground_voxels"]),
            intensities=tuple(Intensities.from_json(channel) for channel in record["intensities"]),
        )


@dataclass(frozen=True)
class CaseRecord:
    """Everything inspection found out about one case.

    Attributes:
        image_files, label_file: relative to the dataset folder, posix.
        image_digests, label_digest: SHA-256 of the raw files; empty where a file cannot be read.
        digest: of all files a result of this case depends on (side-car files of the reader included).
        pixel_digest: of the decoded voxels and the shape, so that a re-saved copy is still recognised; None if unread.
        geometry: grid of the first channel; None if the image cannot be read.
        stored_dtype: numpy name of what the image files hold, ``mixed`` if they differ.
        channels: image channels found (an RGB file has three).
        label_voxels: voxels of each label value in the whole label map.
        values_file: name and SHA-256 of the side file with the value counts; None without label or with errors.
    """

    case_id: str
    image_files: tuple[str, ...]
    label_file: str | None
    image_digests: tuple[str, ...]
    label_digest: str | None
    digest: str
    pixel_digest: str | None = None
    geometry: Geometry | None = None
    stored_dtype: str | None = None
    channels: int = 0
    label_voxels: Mapping[int, int] | None = None
    problems: tuple[Problem, ...] = ()
    fingerprint: CaseFingerprint | None = None
    values_file: tuple[str, str] | None = None

    @property
    def has_errors(self) -> bool:
        return any(problem.severity == "error" for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        fingerprint = None if self.fingerprint is None else self.fingerprint.to_json()
        if fingerprint is not None and self.values_file is not None:
            fingerprint["values"] = {"file": self.values_file[0], "digest": self.values_file[1]}
        voxels = None if self.label_voxels is None else {str(k): v for k, v in sorted(self.label_voxels.items())}
        return {
            "files": {"images": list(self.image_files), "label": self.label_file},
            "image_digests": list(self.image_digests),
            "label_digest": self.label_digest,
            "digest": self.digest,
            "pixel_digest": self.pixel_digest,
            "geometry": None if self.geometry is None else self.geometry.to_json(),
            "shape": None if self.geometry is None else list(self.geometry.shape_zyx),
            "stored_dtype": self.stored_dtype,
            "channels": self.channels,
            "label_voxels": voxels,
            "problems": [problem.to_json() for problem in self.problems],
            "fingerprint": fingerprint,
        }

    @staticmethod
    def from_json(case_id: str, record: Mapping[str, Any]) -> CaseRecord:
        fingerprint, voxels, geometry = record["fingerprint"], record["label_voxels"], record["geometry"]
        values = None if fingerprint is None else fingerprint.get("values")
        return CaseRecord(
            case_id=case_id,
            image_files=tuple(record["files"]["images"]),
            label_file=record["files"]["label"],
            image_digests=tuple(record["image_digests"]),
            label_digest=record["label_digest"],
            digest=record["digest"],
            pixel_digest=record["pixel_digest"],
            geometry=None if geometry is None else Geometry.from_json(geometry),
            stored_dtype=record["stored_dtype"],
            channels=int(record["channels"]),
            label_voxels=None if voxels is None else {int(value): int(count) for value, count in voxels.items()},
            problems=tuple(Problem.from_json(problem) for problem in record["problems"]),
            fingerprint=None if fingerprint is None else CaseFingerprint.from_json(fingerprint),
            values_file=None if values is None else (_file_name(values["file"]), str(values["digest"])),
        )


@dataclass(frozen=True)
class Batch:
    """The content of ``inspection/{batch}.json`` or ``test/{batch}.json``."""

    name: str
    reader: str
    test: bool
    cases: Mapping[str, CaseRecord]


def write_batch(path: Path, batch: Batch) -> None:
    """Write a batch file atomically; equal content gives equal bytes."""
    content = {
        "version": VERSION,
        "batch": batch.name,
        "reader": batch.reader,
        "test": batch.test,
        "cases": {case_id: record.to_json() for case_id, record in batch.cases.items()},
    }
    write_text(path, compact_json(with_seal(content)))


def read_batch(path: Path) -> Batch:
    """Read a batch file.

    Raises:
        DamagedFileError: it is no batch file, or one of another version.
    """
    content = read_json(path)
    try:
        if content["version"] != VERSION:
            found = brief(content["version"])
            raise DamagedFileError(path, f"inspection format {found}, this program knows {VERSION}")
        cases = {case_id: CaseRecord.from_json(case_id, record) for case_id, record in content["cases"].items()}
        return Batch(str(content["batch"]), str(content["reader"]), bool(content["test"]), dict(sorted(cases.items())))
    except MALFORMED as error:
        raise DamagedFileError(path, f"not an inspection file ({brief(repr(error))})") from error


def read_batches(paths: Iterable[Path]) -> tuple[str, dict[str, CaseRecord]]:
    """The reader and all records of several batch files, sorted by case id.

    Raises:
        DatasetError: the batches were made with different readers, or a case is in two of them.
    """
    readers: set[str] = set()
    records: dict[str, CaseRecord] = {}
    for path in paths:
        batch = read_batch(path)
        readers.add(batch.reader)
        twice = sorted(records.keys() & batch.cases.keys())
        if twice:
            raise DatasetError(f"{path}: case {twice[0]} is in another inspection batch too; remove the stale batch")
        records.update(batch.cases)
    if len(readers) > 1:
        names = ", ".join(sorted(readers))
        raise DatasetError(
            f"inspection batches were made with different readers ({names}), because the first image chooses one;"
            " name one of them in dataset.json, `overwrite_image_reader_writer`, and run again"
        )
    return (readers.pop() if readers else ""), dict(sorted(records.items()))


def compact_json(value: Any) -> str:
    """The project's JSON form with lists of numbers on one line: a third of the size, and still easy to read."""
    return re.sub(r"\[\n[^\[\]{}]*?\]", _on_one_line, json_text(value))


def _file_name(name: str) -> str:
    """A name in the store's folder, nowhere else. Raises ValueError."""
    if not isinstance(name, str) or not name or name in (".", "..") or {"/", "\\", "\0"} & set(name):
        raise ValueError(f"{name!r} is not a file name")
    return name


def _on_one_line(match: re.Match[str]) -> str:
    # A raw line break is never inside a JSON string, so only lists are met here; a list with a bracket in a string
    # may be cut short by the pattern and is left as it is.
    try:
        return json.dumps(json.loads(match.group()), ensure_ascii=False)
    except json.JSONDecodeError:
        return match.group()
