"""One writer per training state: a file lock with the name of its owner (design, decision 7)."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from segwright.core.errors import DamagedFileError, TrainingError
from segwright.core.files import read_json, write_json

log = logging.getLogger(__name__)

LOCK_FILE, OWNER_FILE = "lock", "owner.json"
_ORPHAN_GRACE_S = 10.0
_POLL_S = 0.2


def this_process() -> dict[str, Any]:
    """Who is running: host, process, job of the scheduler, and since when."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class FolderLock:
    """Exclusive use of a folder for the duration of a ``with`` block.

    The kernel frees the lock when its process ends, however it ends; the owner record is only there to name somebody.

    Raises:
        TrainingError: on entering, if another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        give_up = time.monotonic() + _ORPHAN_GRACE_S
        while not _locked(descriptor):
            owner = self._owner()
            # the owner is gone, but its loader processes, which inherited the lock, have not noticed yet
            if owner is None or not _died_here(owner) or time.monotonic() > give_up:
                os.close(descriptor)
                raise TrainingError(_refusal(self.folder, owner))
            time.sleep(_POLL_S)
        self._descriptor = descriptor
        _forget_in_forks(self)
        previous = self._owner()
        if previous is not None:
            log.info("%s: taking over from process %s on %s", self.folder, previous.get("pid"), previous.get("host"))
        write_json(self.folder / OWNER_FILE, this_process())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor < 0:
            return
        (self.folder / OWNER_FILE).unlink(missing_ok=True)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also where a child still has the descriptor
        os.close(self._descriptor)
        self._descriptor = -1

    def close_in_child(self) -> None:
        """A forked child gives up its share of the lock, or it would outlive the training."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _owner(self) -> dict[str, Any] | None:
        with contextlib.suppress(DamagedFileError):
            record = read_json(self.folder / OWNER_FILE)
            return record if isinstance(record, dict) else None
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _died_here(owner: dict[str, Any]) -> bool:
    if owner.get("host") != platform.node():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, ValueError):
        return False
    return False


def _refusal(folder: Path, owner: dict[str, Any] | None) -> str:
    if owner is None:
        return f"{folder}: another training is writing here; wait until it ends"
    job = f", job {owner['job']}" if owner.get("job") else ""
    return (
        f"{folder}: another training is writing here: host {owner.get('host')}, process {owner.get('pid')}{job}, "
        f"since {owner.get('since')}; wait until it ends, or end it, then run again"
    )


def _forget_in_forks(lock: FolderLock) -> None:
    reference = weakref.ref(lock)

    def close() -> None:
        held = reference()
        if held is not None:
            held.close_in_child()

    os.register_at_fork(after_in_child=close)
