"""Manifests: which file holds a case's label map or probabilities, and the digest it must have.

``{"version": 1, "cases": {case: {"file": path relative to the manifest's folder, "digest": sha256}}}``. Predictions of
test images name a second file a case the same way, under ``probabilities``. ``inference/finished.py`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import read_json
from segwright.core.recorded import RecordedFile


def read_manifest(path: Path, role: str | None = None) -> dict[str, RecordedFile]:
    """The cases of one manifest, sorted by id.

    Args:
        role: None for the case's main file, else the key of another one, such as ``probabilities``.

    Raises:
        DamagedFileError: it is missing or not a manifest.
    """
    record = read_json(path)
    try:
        files = {
            str(case_id): entry if role is None else entry[role] for case_id, entry in sorted(record["cases"].items())
        }
        return {
            case_id: RecordedFile(path.parent / entry["file"], str(entry["digest"]), path, case_id=case_id)
            for case_id, entry in files.items()
        }
    except MALFORMED as problem:
        text = brief(repr(problem))
        raise DamagedFileError(path, f"not a list of cases with files and digests ({text})") from problem


def read_manifests(paths: Iterable[Path], role: str | None = None) -> dict[str, RecordedFile]:
    """The cases of several manifests (the folds of a cross-validation, or batches) together, sorted by id.

    Raises:
        DatasetError: a case appears in two of them.
        DamagedFileError: one is missing or not a manifest.
    """
    merged: dict[str, RecordedFile] = {}
    for path in paths:
        for case_id, entry in read_manifest(path, role).items():
            if case_id in merged:
                raise DatasetError(
                    f"case {case_id} is in {merged[case_id].source} and in {path}, but each case may be predicted"
                    " by one fold only; correct the split and train these folds again"
                )
            merged[case_id] = entry
    return dict(sorted(merged.items()))
