"""Datasets in nnU-Net v2's raw layout: channels and cases (method 1.1).

``<dataset>/dataset.json, imagesTr/<case>_<CCCC><ending>, labelsTr/<case><ending>, imagesTs/...``
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import DatasetError, brief
from segwright.core.files import read_json
from segwright.core.labels import Labels, require_name

_CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")
_CHANNEL_KEY = re.compile(r"[0-9]{1,4}")
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,3}")


@dataclass(frozen=True)
class Case:
    """One image: its channel files in channel order, and its label file if it has one."""

    case_id: str
    image_files: tuple[Path, ...]
    label_file: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """A raw dataset folder: what its dataset.json says and which cases its folders hold."""

    folder: Path
    name: str
    channel_names: tuple[str, ...]
    labels: Labels
    file_ending: str
    num_training: int
    reader: str | None
    training: tuple[Case, ...]
    test: tuple[Case, ...]
    description: Mapping[str, Any]

    def training_case(self, case_id: str) -> Case:
        for case in self.training:
            if case.case_id == case_id:
                return case
        raise DatasetError(f"{self.folder}: there is no training case {case_id}")


def load_dataset(folder: Path | str) -> Dataset:
    """Read dataset.json and list the cases; opens no image.

    A training case without label file has ``label_file=None``; inspection reports it with all else, and so it does with
    files that dataset.json lists and that are not there.

    Raises:
        DatasetError: the folder or dataset.json is missing, or dataset.json lacks something or contradicts itself.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not the dataset's folder" if folder.exists() else "the dataset folder does not exist"
        start = "" if folder.is_absolute() else f" (it starts at {Path.cwd()})"
        raise DatasetError(f"{folder}: {what}; correct its path{start}")
    if not (folder / "dataset.json").is_file():
        raise DatasetError(
            f"{folder}: there is no dataset.json; nnU-Net v2's raw layout is expected (`segwright convert`)"
        )
    facts = read_json(folder / "dataset.json")
    if not isinstance(facts, dict):
        raise DatasetError(f"{folder / 'dataset.json'}: must be a JSON object")
    channel_names = _channel_names(folder, facts)
    for key in ("labels", "numTraining", "file_ending"):
        if key not in facts:
            raise DatasetError(f"{folder / 'dataset.json'}: the key `{key}` is missing")
    reader, ending, count = facts.get("overwrite_image_reader_writer"), facts["file_ending"], facts["numTraining"]
    if not isinstance(ending, str) or not _ENDING.fullmatch(ending):
        raise DatasetError(f'{folder / "dataset.json"}: `file_ending` must be an ending such as ".nii.gz"')
    if isinstance(count, bool) or not isinstance(count, (int, float)) or count != count // 1 or count < 0:
        raise DatasetError(f"{folder / 'dataset.json'}: `numTraining` must be the number of training cases")
    if not (reader is None or isinstance(reader, str)):
        raise DatasetError(f"{folder / 'dataset.json'}: `overwrite_image_reader_writer` must be a reader's name")
    if "dataset" in facts:
        training = _listed_cases(folder, facts["dataset"])
    else:
        for needed in ("imagesTr", "labelsTr"):
            if not (folder / needed).is_dir():
                raise DatasetError(f"{folder}: the folder {needed} is missing")
        training = find_cases(folder / "imagesTr", ending, folder / "labelsTr")
    return Dataset(
        folder=folder,
        name=folder.resolve().name,
        channel_names=channel_names,
        labels=_labels(folder, facts),
        file_ending=ending,
        num_training=int(count),
        reader=None if reader in (None, "None") else reader,
        training=training,
        test=find_cases(folder / "imagesTs", ending) if (folder / "imagesTs").is_dir() else (),
        description=facts,
    )


def image_sidecar(path: Path) -> Path:
    """Where the spacing of a TIFF channel file stands: in the same folder, under its case's name (method 1.3)."""
    return path.with_name(_CHANNEL_SUFFIX.sub("", path.stem) + ".json")


def label_sidecar(path: Path) -> Path:
    """Where the spacing of a TIFF label map stands: in the same folder, under its name, which may end in digits."""
    return path.with_suffix(".json")


def find_cases(images: Path, file_ending: str, labels: Path | None = None) -> tuple[Case, ...]:
    """List the cases of an image folder, sorted by id. Files without a four-digit channel suffix are left out.

    Each folder is listed once and names are compared as text: every start of the workflow lists thousands of files.
    """
    channels: dict[str, list[Path]] = {}
    for name in sorted(path.name for path in images.iterdir()):
        if name.startswith(".") or not name.endswith(file_ending):
            continue
        stem = name[: -len(file_ending)]
        if _CHANNEL_SUFFIX.search(stem):
            channels.setdefault(stem[:-5], []).append(images / name)
    label_names = set() if labels is None else _file_names(labels)
    cases = []
    for case_id in sorted(channels):
        name = f"{case_id}{file_ending}"
        label = labels / name if labels is not None and name in label_names else None
        cases.append(Case(case_id, tuple(channels[case_id]), label))
    return tuple(cases)


def _file_names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def batch_of(case_id: str, batches: int) -> str:
    """Name of the batch a case belongs to: a stable hash, so a new case never moves the others."""
    width = len(str(batches - 1))
    return f"batch_{zlib.crc32(case_id.encode('utf-8')) % batches:0{width}d}"


def cases_by_batch(case_ids: Iterable[str], batches: int) -> dict[str, list[str]]:
    """Non-empty batches, sorted, with their sorted case ids."""
    members: dict[str, list[str]] = {}
    for case_id in sorted(case_ids):
        members.setdefault(batch_of(case_id, batches), []).append(case_id)
    return dict(sorted(members.items()))


def _channel_names(folder: Path, facts: Mapping[str, Any]) -> tuple[str, ...]:
    declared = facts.get("channel_names", facts.get("modality"))
    if not isinstance(declared, Mapping) or not declared:
        raise DatasetError(f'{folder / "dataset.json"}: `channel_names` is missing; for example {{"0": "CT"}}')
    indices = sorted(declared, key=int) if all(_CHANNEL_KEY.fullmatch(str(key)) for key in declared) else []
    if not indices or [int(index) for index in indices] != list(range(len(declared))):
        raise DatasetError(f'{folder / "dataset.json"}: the keys of `channel_names` must be "0", "1", ...')
    for index in indices:
        require_name(declared[index], "channel")
    return tuple(str(declared[index]) for index in indices)


def _labels(folder: Path, facts: Mapping[str, Any]) -> Labels:
    """The labels; among several datasets the message must say whose they are."""
    try:
        return Labels.from_json(facts)
    except DatasetError as error:
        raise DatasetError(f"{folder}: {error}") from error


def _listed_cases(folder: Path, listed: Any) -> tuple[Case, ...]:
    """Cases of the optional `dataset` key; relative paths start at the dataset folder."""
    where = folder / "dataset.json"
    if not isinstance(listed, Mapping):
        raise DatasetError(f"{where}: `dataset` must map case names to their files")
    cases = []
    for case_id in sorted(listed):
        entry = listed[case_id]
        files = [*entry["images"], entry["label"]] if _has_files(entry) else [None]
        if not all(isinstance(file, str) and file and "\0" not in file for file in files):
            raise DatasetError(
                f'{where}: `dataset` must give {brief(case_id)} files: {{"images": [...], "label": ...}}'
            )
        images = tuple(folder / os.path.expandvars(path) for path in listed[case_id]["images"])
        label = folder / os.path.expandvars(listed[case_id]["label"])
        cases.append(Case(str(case_id), images, label))
    return tuple(cases)


def _has_files(entry: Any) -> bool:
    """Whether an entry of the `dataset` key has the form v2 wants."""
    return isinstance(entry, Mapping) and isinstance(entry.get("images"), list) and "label" in entry
