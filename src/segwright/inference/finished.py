"""What lets a killed prediction go on where it was: a note beside the outputs of every finished case.

Snakemake deletes declared outputs (the manifests) before a job starts, so they cannot say what is finished. A note lies
in an undeclared folder and records what a case was made from and the digests of its files. A case is kept only if both
fit; otherwise it is made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError
from segwright.core.files import file_digest, read_json, remove_leftovers, write_json
from segwright.core.recorded import RecordedFile

MANIFEST_VERSION = 1
PROBABILITIES_SUFFIX = ".probabilities"
_FOLDER = ".finished"

LABEL, PROBABILITIES, NEXT_STAGE = "label", "probabilities", "next_stage/"
"""Roles of a case's files; the last one is followed by the name of the configuration whose input the file is."""

Files = Mapping[str, Path]
"""Role -> file."""


def finished_digests(folder: Path, case_id: str, inputs: str, files: Files) -> dict[str, str] | None:
    """Digests of a finished case's files by role, or None if anything is missing, altered or made from other inputs."""
    path = _note(folder, case_id)
    note = _read_note(path)
    if note is None or note.get("inputs") != inputs:
        return None
    recorded: Mapping[str, Any] = note["files"]
    digests = {}
    for role, file in files.items():
        entry = recorded.get(role)
        if entry is None or folder / entry["file"] != file:
            return None
        digests[role] = str(entry["digest"])
        if RecordedFile(file, digests[role], path).problem() is not None:
            return None
    return digests


def note_finished(folder: Path, owner: str, case_id: str, inputs: str, files: Files) -> dict[str, str]:
    """Record a case whose files were just written; files of an older note that it replaces are removed."""
    digests = {role: file_digest(file) for role, file in files.items()}
    keep = {file.relative_to(folder).as_posix() for file in files.values()}
    _remove_files(folder, _read_note(_note(folder, case_id)), keep)
    entries = {
        role: {"file": file.relative_to(folder).as_posix(), "digest": digests[role]} for role, file in files.items()
    }
    write_json(_note(folder, case_id), {"owner": owner, "inputs": inputs, "files": entries})
    return digests


def remove_unfinished(folder: Path, cases: Mapping[str, Files]) -> None:
    """Remove what killed writers of these cases (case -> its files) left half-written."""
    remove_leftovers(file for files in cases.values() for file in files.values())
    remove_leftovers(_note(folder, case_id) for case_id in cases)


def remove_stale(folder: Path, owner: str, cases: Mapping[str, Files]) -> None:
    """Remove cases (files and notes) that ``owner``, a fold or a batch, once made and no longer has; of those it has
    what is half-written.
    """
    remove_unfinished(folder, cases)
    for path in sorted((folder / _FOLDER).glob("*.json")):
        note = _read_note(path)
        if note is not None and note.get("owner") == owner and path.name.removesuffix(".json") not in cases:
            _remove_files(folder, note, set())
            path.unlink()


def write_manifest(path: Path, folder: Path, cases: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``{"version": 1, "cases": {case: {"file", "digest", ...}}}``; a Path value becomes relative to ``path``."""
    content = {
        case_id: {
            key: value.relative_to(folder).as_posix() if isinstance(value, Path) else value
            for key, value in entry.items()
        }
        for case_id, entry in cases.items()
    }
    write_json(path, {"version": MANIFEST_VERSION, "cases": content}, sealed=True)


def keeps_probabilities(path: Path) -> bool:
    """Whether a manifest that is there lists the probabilities of all its cases.

    A ``probabilities.json`` lists them as ``file``, a batch of test images beside the label map. A damaged manifest
    keeps nothing: the stage that reads it says so.
    """
    if not path.is_file():
        return False
    try:
        cases = read_json(path)["cases"]
        listed = [entry.get(PROBABILITIES, {"file": entry["file"]})["file"] for entry in cases.values()]
    except (DamagedFileError, *MALFORMED):
        return False
    return bool(listed) and all(str(file).endswith(PROBABILITIES_SUFFIX) for file in listed)


def holds_predictions(folder: Path, manifest: Path) -> bool:
    """Whether cases were predicted into a folder: one was noted there, or a manifest lists them all."""
    if any((folder / _FOLDER).glob("*.json")):
        return True
    try:
        listed = read_json(manifest) if manifest.is_file() else None
    except DamagedFileError:
        return False
    return isinstance(listed, dict) and listed.get("version") == MANIFEST_VERSION and "cases" in listed


def require_free_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to begin what would fill the disk.

    Raises:
        DatasetError: says how much is needed and how much is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DatasetError(
            f"{folder}: {what} need up to {_size(needed_bytes)} but only {_size(free_bytes)} are free on this disk; "
            "free some space, put the results on another disk, or do without probabilities"
        )


def _note(folder: Path, case_id: str) -> Path:
    return folder / _FOLDER / f"{case_id}.json"


def _read_note(path: Path) -> dict[str, Any] | None:
    """A note's content; None where there is none or it is not one of ours (it only saves work).

    Files of older notes are removed, so a note that names files outside its folder is none, whoever wrote it.
    """
    if not path.is_file():
        return None
    try:
        note: dict[str, Any] = read_json(path)
        entries = [(Path(entry["file"]), str(entry["digest"])) for entry in note["files"].values()]
    except (DamagedFileError, *MALFORMED):
        return None
    return None if any(file.anchor or ".." in file.parts for file, _ in entries) else note


def _remove_files(folder: Path, note: Mapping[str, Any] | None, keep: Iterable[str]) -> None:
    for entry in (note or {"files": {}})["files"].values():
        if entry["file"] not in keep:
            (folder / entry["file"]).unlink(missing_ok=True)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"
