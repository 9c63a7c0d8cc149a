"""What the converters share: MSD's and v1's dataset.json, and a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from segwright.core.errors import DatasetError
from segwright.core.files import TEMPORARY_PREFIX, read_json

ENDING = ".nii.gz"
"""Of all images and label maps, in both."""
_NAME = re.compile(r"Dataset\d{3,}_[A-Za-z0-9_.+-]+")


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``output``; on success rename it to ``output``, else remove it.

    Raises:
        DatasetError: ``output`` exists already and is not an empty folder.
    """
    _require_absent(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{output.name}")
    temporary.mkdir()
    try:
        yield temporary
        _require_absent(output)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_absent(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not (output.is_dir() and not any(output.iterdir()))):
        raise DatasetError(f"{output}: exists already and is never overwritten; remove it or choose another folder")


def dataset_name(task: str, dataset_id: int | None) -> str:
    """``Task04_Hippocampus`` -> ``Dataset004_Hippocampus`` (method 1.4); ``dataset_id`` replaces the task's number.

    Raises:
        DatasetError: the folder is not named like a task, or the id is not from 1 to 999.
    """
    match = re.fullmatch(r"Task(\d+)_(.+)", task)
    if match is None:
        raise DatasetError(f"{task}: not named like Task04_Hippocampus; give a name: --name Dataset004_Hippocampus")
    number = int(match.group(1)) if dataset_id is None else dataset_id
    if not 1 <= number <= 999:
        raise DatasetError(f"{task}: the dataset id must be from 1 to 999, not {number}; choose another id")
    return checked_name(f"Dataset{number:03d}_{match.group(2)}")


def checked_name(name: str) -> str:
    """The name itself, if it is one of nnU-Net v2's form and a single folder.

    Raises:
        DatasetError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise DatasetError(f"`{name}` is no dataset name; it must look like Dataset004_Hippocampus")
    return name


def require_free_id(parent: Path, name: str) -> None:
    """Refuse an id that another dataset in the same folder has (method 1.1: an id belongs to one name).

    Raises:
        DatasetError: it is taken.
    """
    prefix = name.split("_", 1)[0] + "_"
    taken = sorted(folder.name for folder in parent.glob(f"{prefix}*")) if parent.is_dir() else []
    if taken:
        raise DatasetError(f"{parent / taken[0]}: has the id of {name} already; choose another id for the new dataset")


def read_task(source: Path, kind: str) -> Mapping[str, Any]:
    """The task's dataset.json; its ``modality`` maps "0", "1", ... to the names of the channels.

    Args:
        kind: of the folder, for messages.

    Raises:
        DatasetError: there is none, or ``modality`` is missing.
    """
    path = source / "dataset.json"
    if not path.is_file():
        raise DatasetError(f"{source}: there is no dataset.json; this is no {kind} task folder")
    facts = read_json(path)
    modality = facts.get("modality") if isinstance(facts, dict) else None
    if not isinstance(modality, dict) or not modality or not all(key.isdecimal() and len(key) < 5 for key in modality):
        raise DatasetError(f'{path}: `modality` is missing; for example {{"0": "MRI"}}')
    return facts


def description_v2(facts: Mapping[str, Any], source: Path, cases: int, dropped: Iterable[str] = ()) -> dict[str, Any]:
    """v2's dataset.json of a task: labels by name, ``channel_names`` for ``modality``, no lists of files.

    Args:
        dropped: further keys to leave out; all others are kept.

    Raises:
        DatasetError: ``labels`` is not a mapping of numbers to different names, or has no 0.
    """
    left_out = ("modality", "labels", "training", "test", "numTraining", *dropped)
    return {
        **{key: value for key, value in facts.items() if key not in left_out},
        "channel_names": {str(index): str(facts["modality"][index]) for index in sorted(facts["modality"], key=int)},
        "labels": _labels_by_name(facts.get("labels"), source / "dataset.json"),
        "numTraining": cases,
        "file_ending": ENDING,
    }


def _labels_by_name(declared: Any, path: Path) -> dict[str, int]:
    """Turn v1's and MSD's labels, ``{"0": "background", "1": "liver"}``, into v2's ``{"background": 0, "liver": 1}``.

    The background is called ``background`` whatever the source calls it, because v2 requires that.
    """
    if not isinstance(declared, Mapping) or not all(
        str(value).isdecimal() and len(str(value)) < 6 for value in declared
    ):
        raise DatasetError(f'{path}: `labels` must map numbers to names, such as {{"0": "background", "1": "liver"}}')
    names = {int(value): str(name) for value, name in declared.items()}
    if 0 not in names:
        raise DatasetError(f"{path}: `labels` has no 0; the background must be there")
    names[0] = "background"
    if len(set(names.values())) < len(names):
        raise DatasetError(f"{path}: several labels have the same name; give each its own")
    return {names[value]: value for value in sorted(names)}
