"""Memory that the training and its loading workers share: anonymous, and handed over as a file descriptor.

It is not /dev/shm, whose limit (64 MB in many containers) therefore does not matter, and it leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile

import numpy as np

from segwright.core.errors import TrainingError
from segwright.training.worker_death import explain_error

_NOTE_BYTES = 512  # of each worker: what it works at, readable after its death


def slots_for(workers: int) -> int:
    """How many batches are made or waiting at a time: every worker is busy, and two batches are ready."""
    return workers + 2


class SharedMemory:
    """Anonymous memory seen by parent and workers: a note of each worker, then the slots."""

    def __init__(self, workers: int, slots: int, slot_bytes: int, descriptor: int | None = None) -> None:
        self._first_slot = -(-workers * _NOTE_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
        self._slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.facts: tuple[int, int, int] = (workers, slots, slot_bytes)
        size_bytes = self._first_slot + slots * self._slot_bytes
        if descriptor is None:
            descriptor = _anonymous_file(size_bytes)
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, size_bytes)

    def slot(self, number: int) -> np.ndarray:
        """The bytes of a slot, as uint8 array."""
        return np.frombuffer(self._map, np.uint8, self._slot_bytes, self._first_slot + number * self._slot_bytes)

    def write_note(self, worker: int, text: str) -> None:
        note = text.encode("utf-8")[: _NOTE_BYTES - 1]
        start = worker * _NOTE_BYTES
        self._map[start : start + _NOTE_BYTES] = note.ljust(_NOTE_BYTES, b"\0")

    def note_text(self, worker: int) -> str:
        start = worker * _NOTE_BYTES
        note = self._map[start : start + _NOTE_BYTES].rstrip(b"\0").decode("utf-8", "replace")
        return note or "before its first batch"

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            with contextlib.suppress(BufferError):  # an array over it is still in use; the memory goes with it
                self._map.close()


def _anonymous_file(size_bytes: int) -> int:
    """Descriptor of shared memory (Linux) or of an unlinked temporary file, reserved in full.

    Raises:
        TrainingError: there is no room.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("segwright-batches")
    else:
        with tempfile.TemporaryFile() as unlinked:
            descriptor = os.dup(unlinked.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size_bytes)
        else:
            os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        os.close(descriptor)
        cause = explain_error(error) or str(error)
        raise TrainingError(f"{size_bytes / 2**20:.0f} MiB of shared memory for batches: {cause}") from error
    return descriptor
