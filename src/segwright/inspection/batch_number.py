"""The number of batches of a dataset, fixed at first use (architecture, decision 2)."""

from __future__ import annotations

from pathlib import Path

from segwright.core.errors import DamagedFileError, SettingsError, brief
from segwright.core.files import read_json, write_json


def record_batches(folder: Path, batches: int) -> int:
    """Fix a dataset's number of batches in ``folder/inspection/batches.json``.

    Raises:
        SettingsError, DamagedFileError: as :func:`require_batches`.
    """
    require_batches(folder, batches)
    path = _record(folder)
    if not path.is_file():
        write_json(path, {"batches": batches})
    return batches


def require_batches(folder: Path, batches: int) -> None:
    """The number is the recorded one, if there is a record.

    Raises:
        SettingsError: another number was used before. DamagedFileError: the record cannot be read.
    """
    path = _record(folder)
    if not path.is_file():
        return
    record = read_json(path)
    before = record.get("batches") if isinstance(record, dict) else None
    if not isinstance(before, int):
        raise DamagedFileError(path, f"not a record of the number of batches ({brief(record)})")
    if before != batches:
        raise SettingsError(
            f"`batches` is {batches} but this dataset was first inspected with {before}: cases would move to other"
            f" batches, and inspection, preprocessing and test predictions of all of them would be made again;"
            f" set `batches: {before}`, or delete {folder} if that is what you want"
        )


def _record(folder: Path) -> Path:
    return Path(folder) / "inspection" / "batches.json"
