"""One writer per training state: a file lock with the name of its owner (design, decision 7).

Two things keep a second writer out. The kernel's lock, which frees itself when its process ends, however it ends. And,
because some shared file systems keep such locks to one host (Lustre and NFS with local locking), the owner's record,
which the owner touches every few seconds: a record of another host that is still touched means that somebody works
there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import threading
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from segwright.core.errors import DamagedFileError, TrainingError
from segwright.core.files import read_json, storage_error, write_json

log = logging.getLogger(__name__)

LOCK_FILE, OWNER_FILE = "lock", "owner.json"
_ORPHAN_GRACE_S = 10.0
_POLL_S = 0.2
_TOUCH_EVERY_S = 10.0
_WATCH_S = 35.0  # an owner on another host that does not touch its record for so long is dead


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

    Raises:
        TrainingError: on entering, if another process holds it.
        StorageError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = -1
        self._touching: _Touching | None = None

    def __enter__(self) -> FolderLock:
        descriptor = self._open()
        try:
            self._require_free(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _forget_in_forks(self)
        write_json(self.folder / OWNER_FILE, this_process())
        self._touching = _Touching(self.folder / OWNER_FILE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor < 0:
            return
        if self._touching is not None:
            self._touching.stop()
        (self.folder / OWNER_FILE).unlink(missing_ok=True)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also where a child still has the descriptor
        os.close(self._descriptor)
        self._descriptor = -1

    def close_in_child(self) -> None:
        """A forked child gives up its share of the lock, or it would outlive the training."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        path = self.folder / LOCK_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            problem = storage_error(path, error)
            if problem is None:
                raise
            raise problem from error

    def _require_free(self, descriptor: int) -> None:
        give_up = time.monotonic() + _ORPHAN_GRACE_S
        while not _locked(descriptor):
            owner = self._owner()
            # the owner is gone, but its loader processes, which inherited the lock, have not noticed yet
            if owner is None or not _died_here(owner) or time.monotonic() > give_up:
                raise TrainingError(_refusal(self.folder, owner))
            time.sleep(_POLL_S)
        previous = self._owner()
        if previous is None:
            return
        if previous.get("host") != platform.node() and self._is_touched():
            raise TrainingError(_refusal(self.folder, previous))
        log.info("%s: taking over from process %s on %s", self.folder, previous.get("pid"), previous.get("host"))

    def _is_touched(self) -> bool:
        """Whether another host's owner shows that it lives; watches for changes, so clocks need not agree."""
        log.info("%s: another host's training may be alive; watching for %.0f s", self.folder, _WATCH_S)
        before = _touched_at(self.folder / OWNER_FILE)
        end = time.monotonic() + _WATCH_S
        while time.monotonic() < end:
            time.sleep(_POLL_S)
            now = _touched_at(self.folder / OWNER_FILE)
            if now is None:
                return False  # it has just finished
            if now != before:
                return True
        return False

    def _owner(self) -> dict[str, Any] | None:
        with contextlib.suppress(DamagedFileError):
            record = read_json(self.folder / OWNER_FILE)
            return record if isinstance(record, dict) else None
        return None


class _Touching:
    """A thread that sets the modification time of a file every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="lock owner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _touch(self) -> None:
        while not self._end.wait(_TOUCH_EVERY_S):
            with contextlib.suppress(OSError):  # a folder taken away is the training's to report
                os.utime(self._path)


def _touched_at(path: Path) -> int | None:
    """Modification time, asked of the server: opening a file makes a network file system look again."""
    try:
        with path.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
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
