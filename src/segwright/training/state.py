"""The resumable state of a training, outside the workflow's outputs (design, decision 7).

``state/epoch_000012.pt`` holds everything after 12 epochs, ``epoch_000012.json`` its SHA-256 and what it belongs to,
``stamp.json`` the latter in words. The digest file is written last and removed first, so whatever instant a writer is
killed at, what has a fitting digest is whole.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from segwright.core.errors import DamagedFileError, StorageError, TrainingError
from segwright.core.files import (
    atomic_path,
    bytes_digest,
    json_digest,
    read_json,
    remove_temporary_files,
    write_json,
)
from segwright.core.recorded import RecordedFile
from segwright.training.lock import LOCK_FILE, OWNER_FILE

log = logging.getLogger(__name__)

STAMP_FILE = "stamp.json"
KEPT_STATES = 2


class StateFolder:
    """The states in one folder. Its user holds the folder's lock.

    Args:
        stamp: what the training belongs to; every part must be equal for a state to be resumed.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, Any]) -> None:
        self.folder = folder
        self.stamp = dict(stamp)
        self._digest = json_digest(self.stamp)

    def open(self) -> None:
        """Remove what killed writers left, set the states of another training aside, take back those of this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(self.folder)
        path = self.folder / STAMP_FILE
        if path.is_file():
            differences = self._differences(path)
            if not differences:
                return
            aside = self._set_aside()
            log.warning(
                "%s belongs to another training (%s); set aside as %s",
                self.folder,
                ", ".join(differences),
                aside.name,
            )
        if not self._take_back():
            write_json(path, self.stamp)

    def save(self, epoch: int, payload: Mapping[str, Any]) -> None:
        """Write the state after ``epoch`` epochs and remove all but the newest two.

        Raises:
            TrainingError: the disk refuses.
        """
        stream = io.BytesIO()
        torch.save(dict(payload), stream)
        path = self._data(epoch)
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(stream.getbuffer())
            write_json(
                self._record(epoch),
                {"epoch": epoch, "sha256": bytes_digest(stream.getbuffer()), "stamp": self._digest},  # type: ignore[arg-type]
            )
        except StorageError as problem:
            raise TrainingError(f"the training state of epoch {epoch} is not saved: {problem}") from problem
        for old in self._epochs()[KEPT_STATES:]:
            self._remove(old)

    def load(self) -> dict[str, Any] | None:
        """The newest whole state of this training, on the CPU; None: there is none.

        A damaged one is named in a warning and removed, and the one before it is used.
        """
        for epoch in self._epochs():
            problem = self._problem(epoch)
            if problem is None:
                state = self._read(epoch)
                if state is not None:
                    return state
                problem = "it cannot be read"
            log.warning("%s: %s; going on from the state before it", self._data(epoch), problem)
            self._remove(epoch)
        return None

    def _read(self, epoch: int) -> dict[str, Any] | None:
        try:
            state = torch.load(self._data(epoch), map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError, ValueError, OSError):
            return None
        return state if isinstance(state, dict) else None

    def _problem(self, epoch: int) -> str | None:
        try:
            record = read_json(self._record(epoch))
        except DamagedFileError as damage:
            return f"there is no usable digest of it ({damage})"
        if not isinstance(record, dict) or record.get("stamp") != self._digest:
            return "it belongs to another training"
        return RecordedFile(self._data(epoch), str(record.get("sha256")), self._record(epoch)).problem()

    def _differences(self, path: Path) -> list[str]:
        try:
            found = read_json(path)
        except DamagedFileError as damage:
            return [str(damage)]
        if not isinstance(found, dict):
            return [f"{path} is not a stamp"]
        ours, theirs = _flat(self.stamp), _flat(found)
        return [f"{name} differs" for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]

    def _set_aside(self) -> Path:
        """Move all but the lock into ``state.stale-N``; the stamp last, so that a killed move is taken up again."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.stale-{number}")).exists():
            number += 1
        aside.mkdir()
        files = [entry for entry in self.folder.iterdir() if entry.name not in (LOCK_FILE, OWNER_FILE)]
        for entry in sorted(files, key=lambda entry: (entry.name == STAMP_FILE, entry.name)):
            entry.rename(aside / entry.name)
        return aside

    def _take_back(self) -> bool:
        """Move states of this training that were set aside to their place: its settings were changed, and back again.

        The stamp last, so that a killed move is taken up again.
        """
        for aside in sorted(self.folder.parent.glob(f"{self.folder.name}.stale-*")):
            stamp = aside / STAMP_FILE
            if stamp.is_file() and not self._differences(stamp):
                log.warning("%s is of this training, and taken back", aside)
                for entry in sorted(aside.iterdir(), key=lambda entry: (entry == stamp, entry.name)):
                    entry.rename(self.folder / entry.name)
                aside.rmdir()
                return True
        return False

    def _epochs(self) -> list[int]:
        """Numbers of all states, newest first; a data file without digest was not finished and is removed."""
        recorded = {int(path.stem.split("_")[1]) for path in self.folder.glob("epoch_*.json")}
        for path in self.folder.glob("epoch_*.pt"):
            if int(path.stem.split("_")[1]) not in recorded:
                path.unlink()
        return sorted(recorded, reverse=True)

    def _remove(self, epoch: int) -> None:
        self._record(epoch).unlink(missing_ok=True)
        self._data(epoch).unlink(missing_ok=True)

    def _data(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:06d}.pt"

    def _record(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:06d}.json"


def _flat(stamp: Mapping[str, Any]) -> dict[str, str]:
    """``settings.epochs`` -> digest of its value, so that a message can name what differs."""
    parts: dict[str, str] = {}
    for name, value in stamp.items():
        inner = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
        parts.update({key: json_digest(part) for key, part in inner.items()})
    return parts
