"""Processes that make batches, and what happens when one fails.

The parent owns one piece of anonymous shared memory cut into slots of one batch; a worker fills the slot it is told and
answers with a few bytes. It is not /dev/shm, whose limit (64 MB in many containers) therefore does not matter.

Workers are started as plain programs, not through :mod:`multiprocessing`: the user's main module is not imported again,
a signal to the whole job (SIGTERM before a time limit) leaves them alone while the parent finishes its step, and their
exit status is the parent's to read. A worker ends when its connection to the parent does, so also when the parent is
killed. They need no torch: a worker starts in about 0.5 s and takes about 100 MiB.

Against batchgenerators 0.25.5's MultiThreadedAugmenter (same samples, 40x56x40, batch of 9, two workers on two cores):
see ``benchmarks``; beyond speed, that one cannot say which case a dead worker was at, or why it died.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from segwright.core.errors import SegwrightError, TrainingError
from segwright.training.worker_death import activity, explain_error, explain_exit, oom_kills

if TYPE_CHECKING:
    from segwright.training.loader import Source

log = logging.getLogger(__name__)

Key = tuple[int, int]
"""Epoch and step of a batch."""

_NOTE_BYTES = 512  # of each worker: what it works at, readable after its death
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from segwright.training.workers import serve; serve()"
_CLOSE_PATIENCE_S = 2.0
_PARENT_CHECK_S = 1.0
_IDLE_CPU_SHARE = 0.01  # a worker that used less than this share of a core did nothing


class WorkerPool:
    """Worker processes and the slots they fill.

    Args:
        workers: number of processes.
        slots: batches made or waiting at a time; the default keeps every worker busy and two batches ready.
    """

    def __init__(self, source: Source, workers: int, stall_timeout_s: float, slots: int | None = None) -> None:
        self.slots = workers + 2 if slots is None else slots
        self._layout = source.layout
        self._stall_timeout_s = stall_timeout_s
        self._oom_kills = oom_kills()
        self._free = list(range(self.slots))
        self._ready: dict[Key, tuple[int, tuple[str, ...]]] = {}
        self._workers: list[_Worker] = []
        self._closed = False
        self._memory = _SharedMemory(workers, self.slots, self._layout.size_bytes)
        try:
            for number in range(workers):
                self._workers.append(_Worker(number, source, self._memory))
        except BaseException:
            self.close()
            raise

    def take(self, ahead: Sequence[Key], images: np.ndarray, targets: Sequence[np.ndarray]) -> tuple[str, ...]:
        """Copy the batch ``ahead[0]`` into the arrays when it is there; have those after it made meanwhile.

        Raises:
            TrainingError: a worker failed, died or hangs. The pool is closed then.
        """
        if self._closed:
            raise TrainingError("the batch loader is closed")
        try:
            wanted = ahead[0]
            self._order(ahead)
            while wanted not in self._ready:
                self._receive()
                self._order(ahead)
            slot, case_ids = self._ready.pop(wanted)
            made_images, made_targets = self._layout.views(self._memory.slot(slot))
            np.copyto(images, made_images)
            for target, made in zip(targets, made_targets, strict=True):
                np.copyto(target, made)
            self._free.append(slot)
            self._order(ahead[1:])
            return case_ids
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all workers, by force if they do not go."""
        self._closed = True
        for worker in self._workers:
            worker.dismiss()
        deadline = time.monotonic() + _CLOSE_PATIENCE_S
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))
        self._workers = []
        self._memory.close()

    def _order(self, ahead: Sequence[Key]) -> None:
        """Give free slots to the next batches nobody makes yet; drop ready batches nobody wants any more."""
        for key in [key for key in self._ready if key not in ahead]:
            self._free.append(self._ready.pop(key)[0])
        making = {key for worker in self._workers for key in worker.tasks}
        for key in ahead:
            if not self._free:
                return
            if key not in self._ready and key not in making:
                worker = min(self._workers, key=lambda worker: len(worker.tasks))
                worker.order(key, self._free.pop())

    def _receive(self) -> None:
        """Wait for one or more answers."""
        busy_before = {worker.process.pid: activity(worker.process.pid) for worker in self._workers}
        started = time.monotonic()
        by_connection = {worker.connection: worker for worker in self._workers}
        while not (answered := wait(list(by_connection), timeout=self._stall_timeout_s)):
            self._require_activity(busy_before, time.monotonic() - started)
            busy_before = {worker.process.pid: activity(worker.process.pid) for worker in self._workers}
        for connection in answered:
            worker = by_connection[connection]  # type: ignore[index]
            try:
                answer = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                raise TrainingError(self._describe_death(worker)) from None
            if answer[0] == "failed":
                raise TrainingError(answer[1])
            _, key, case_ids = answer
            self._ready[key] = worker.tasks.pop(key), case_ids

    def _describe_death(self, worker: _Worker) -> str:
        try:
            exit_code = worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            exit_code = -signal.SIGKILL
        cause = explain_exit(exit_code, self._oom_kills, worker.crash_log())
        return f"a worker that loads and augments died {self._memory.note_text(worker.number)}: {cause}"

    def _require_activity(self, before: dict[int, tuple[float, str]], waited_s: float) -> None:
        """Raise if no worker did anything; a slow one only gets a warning."""
        texts = []
        for worker in self._workers:
            cpu_s, state = activity(worker.process.pid)
            if worker.tasks and cpu_s - before[worker.process.pid][0] > _IDLE_CPU_SHARE * waited_s:
                log.warning("no batch for %.0f s, but the workers are busy; waiting on", waited_s)
                return
            texts.append(f"worker {worker.number}: {state}, {self._memory.note_text(worker.number)}")
        raise TrainingError(
            f"no batch came for {waited_s:.0f} s and no worker is doing anything ({'; '.join(texts)}). "
            "A file system that does not answer is the usual cause; look at the store's disk and start again"
        )


class _SharedMemory:
    """Anonymous memory seen by parent and workers: a note of each worker, then the slots."""

    def __init__(self, workers: int, slots: int, slot_bytes: int, descriptor: int | None = None) -> None:
        self._first_slot = -(-workers * _NOTE_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
        self._slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.facts = (workers, slots, slot_bytes)
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


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, number: int, source: Source, memory: _SharedMemory) -> None:
        self.number = number
        self.tasks: dict[Key, int] = {}
        """Batches it makes or will make, and their slots."""
        self._crash_log: IO[bytes] = tempfile.TemporaryFile()
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), memory.descriptor, self._crash_log.fileno())
            arguments = [json.dumps([os.path.abspath(entry) for entry in sys.path]), *map(str, fds)]  # noqa: PTH100
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *arguments], stdin=subprocess.DEVNULL, pass_fds=fds
            )
        self.connection = Connection(ours.detach())
        self._send((number, memory.facts, pickle.dumps(source)))

    def order(self, key: Key, slot: int) -> None:
        self.tasks[key] = slot
        self._send((key, slot))

    def crash_log(self) -> str:
        """What Python wrote about a crash in compiled code."""
        self._crash_log.seek(0)
        return self._crash_log.read(4000).decode("utf-8", "replace")

    def dismiss(self) -> None:
        self._send(None)
        self.connection.close()

    def end(self, patience_s: float) -> None:
        try:
            self.process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._crash_log.close()

    def _send(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, OSError):
            self.connection.send(message)  # if it is dead, the next receive says so, with the cause


def serve() -> None:
    """Main function of a worker: fill slots until the connection to the parent ends."""
    connection_fd, memory_fd, crash_fd = (int(argument) for argument in sys.argv[2:5])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # meant for the parent, which finishes its step and then ends us
    faulthandler.enable(crash_fd)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    connection = Connection(connection_fd)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        number, facts, pickled_source = connection.recv()
        memory = _SharedMemory(*facts, descriptor=memory_fd)
        task_key: Key | None = None
        try:
            source: Source = pickle.loads(pickled_source)  # our parent's own bytes
            while (task := connection.recv()) is not None:
                task_key, slot = task
                case_ids = _fill(source, memory, number, task_key, slot)
                connection.send(("made", task_key, case_ids))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:  # whatever it is, the parent must hear of it
            connection.send(("failed", _failure_text(error, memory.note_text(number))))


def _fill(source: Source, memory: _SharedMemory, number: int, key: Key, slot: int) -> tuple[str, ...]:
    images, targets = source.layout.views(memory.slot(slot))
    where = f"epoch {key[0]}, step {key[1]}"
    memory.write_note(number, f"at {where}")

    def announce(case_id: str) -> None:
        memory.write_note(number, f"at case {case_id} ({where})")

    return source.fill(*key, images, targets, announce)


def _failure_text(error: BaseException, note: str) -> str:
    """Message of the parent's TrainingError. Errors a user can mend come without traceback."""
    if isinstance(error, SegwrightError):
        return f"{error} (found {note})"
    trace = "".join(traceback.format_exception(error))
    cause = explain_error(error) or f"{type(error).__name__}: {error}"
    return f"loading and augmenting failed {note}: {cause}\nTraceback of the worker:\n{trace}"


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is gone, even in the middle of a batch."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


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
