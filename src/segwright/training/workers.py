"""The loader that makes batches ahead of time: its worker processes, and what happens when one fails.

The parent owns one piece of shared memory cut into slots of one batch; a worker fills the slot it is told and answers
with a few bytes.

Workers are started as plain programs, not through :mod:`multiprocessing`: the user's main module is not imported again,
a signal to the whole job (SIGTERM before a time limit) leaves them alone while the parent finishes its step, and their
exit status is the parent's to read. A worker ends when its connection to the parent does, so also when the parent is
killed. They need no torch: starting one costs about 0.3 CPU seconds and 40 MiB, not 1.7 and 330.

Against batchgenerators 0.25.5's MultiThreadedAugmenter on the same samples (two workers on two busy cores, two runs of
20 x 2 patches of 128^3 and 60 x 9 of 40x56x40, start included): CPU per large patch 76-78 ms here, 83-96 ms there,
which passes every batch through pipes; per small patch 5 ms here, 4 ms there, which starting explains (0.2 s by fork
there, 1.4 s here). It deals samples out by worker, so their content depends on the number of workers, and it reports a
dead worker without case or cause.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import IO, Any, Generic

import numpy as np

from segwright.core.errors import SegwrightError, TrainingError
from segwright.training.loader import Filled, MadeBatch, Source
from segwright.training.shared_memory import SharedMemory, slots_for
from segwright.training.worker_death import activity, explain_error, explain_exit, oom_kills

log = logging.getLogger(__name__)

Key = tuple[int, int]
"""Epoch and step of a batch."""

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from segwright.training.workers import serve; serve()"
_CLOSE_PATIENCE_S = 2.0
_PARENT_CHECK_S = 1.0
_CONNECTION_ENDED = (EOFError, BrokenPipeError, ConnectionResetError)
_IDLE_CPU_SHARE = 0.01  # a worker that used less than this share of a core did nothing


class BatchLoader(Generic[MadeBatch]):
    """Delivers the batches of a source in order, made by worker processes ahead of time.

    Args:
        workers: 0 makes each batch here when it is asked for; otherwise the number of processes.
        stall_timeout_s: how long to wait for a batch from workers that do nothing before giving up.

    Use it as a context manager or call :meth:`close`. Raises, when a batch is asked for:
        TrainingError: a worker failed, died or hangs; the message names the case and the cause.
    """

    def __init__(self, source: Source[MadeBatch], workers: int, stall_timeout_s: float = 600.0) -> None:
        self._source = source
        self._pool = WorkerPool(source, workers, stall_timeout_s) if workers > 0 else None

    def epoch(self, epoch: int, steps: int) -> Iterator[MadeBatch]:
        """The batches of an epoch. While the last ones are used, the first ones of the next epoch are already made."""
        for step in range(steps):
            if self._pool is None:
                memory, filled = self._fill_here(epoch, step)
            else:
                ahead = (divmod(step + later, steps) for later in range(self._pool.slots + 1))
                memory, filled = self._pool.take([(epoch + more, ahead_step) for more, ahead_step in ahead])
            yield self._source.batch(memory, filled)

    def _fill_here(self, epoch: int, step: int) -> tuple[np.ndarray, Filled]:
        memory, cases = np.empty(self._source.slot_bytes, np.uint8), list[str]()
        try:
            return memory, self._source.fill(epoch, step, memory, cases.append)
        except BaseException as error:
            error.add_note(f"at {f'case {cases[-1]} ' if cases else ''}(epoch {epoch}, step {step})")
            raise

    def close(self) -> None:
        """End the workers. May be called twice."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> BatchLoader[MadeBatch]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WorkerPool:
    """Worker processes and the slots they fill.

    Args:
        workers: number of processes.
        slots: batches made or waiting at a time; None: as :func:`slots_for` says.
    """

    def __init__(self, source: Source[Any], workers: int, stall_timeout_s: float, slots: int | None = None) -> None:
        self.slots = slots_for(workers) if slots is None else slots
        self._stall_timeout_s = stall_timeout_s
        self._oom_kills = oom_kills()
        self._free = list(range(self.slots))
        self._ready: dict[Key, tuple[int, Filled]] = {}
        self._workers: list[_Worker] = []
        self._closed = False
        self._memory = SharedMemory(workers, self.slots, source.slot_bytes)
        try:
            for number in range(workers):
                self._workers.append(_Worker(number, source, self._memory))
        except BaseException:
            self.close()
            raise

    def take(self, ahead: Sequence[Key]) -> tuple[np.ndarray, Filled]:
        """A copy of what was written for the batch ``ahead[0]``, when it is there; those after it are made meanwhile.

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
            slot, filled = self._ready.pop(wanted)
            memory = self._memory.slot(slot)[: filled.used_bytes].copy()
            self._free.append(slot)
            self._order(ahead[1:])
            return memory, filled
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
        by_connection = {worker.connection: worker for worker in self._workers}
        half_s = self._stall_timeout_s / 2
        answered = wait(list(by_connection), timeout=half_s)
        while not answered:
            before = [activity(worker.process.pid)[0] for worker in self._workers]
            answered = wait(list(by_connection), timeout=half_s)
            if not answered:
                self._require_activity(before, half_s)
        for connection in answered:
            worker = by_connection[connection]  # type: ignore[index]
            try:
                answer = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                raise TrainingError(self._describe_death(worker)) from None
            if answer[0] == "failed":
                raise TrainingError(answer[1])
            _, key, filled = answer
            self._ready[key] = worker.tasks.pop(key), filled

    def _describe_death(self, worker: _Worker) -> str:
        try:
            exit_code = worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            exit_code = -signal.SIGKILL
        cause = explain_exit(exit_code, self._oom_kills, worker.crash_log())
        return f"a worker that loads and augments died {self._memory.note_text(worker.number)}: {cause}"

    def _require_activity(self, cpu_before_s: Sequence[float], waited_s: float) -> None:
        """Raise if no worker did anything meanwhile; slow ones only get a warning."""
        texts = []
        for worker, before_s in zip(self._workers, cpu_before_s, strict=True):
            cpu_s, state = activity(worker.process.pid)
            if worker.tasks and cpu_s - before_s > _IDLE_CPU_SHARE * waited_s:
                log.warning("no batch for %.0f s, but the workers are busy; waiting on", 2 * waited_s)
                return
            texts.append(f"worker {worker.number}: {state}, {self._memory.note_text(worker.number)}")
        raise TrainingError(
            f"no batch came for {2 * waited_s:.0f} s and no worker is doing anything ({'; '.join(texts)}). "
            "A file system that does not answer is the usual cause; look at the store's disk and start again"
        )


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, number: int, source: Source[Any], memory: SharedMemory) -> None:
        self.number = number
        self.tasks: dict[Key, int] = {}
        """Batches it makes or will make, and their slots."""
        self._crash_log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), memory.descriptor, self._crash_log.fileno())
            arguments = [json.dumps([os.path.abspath(entry) for entry in sys.path]), *map(str, fds)]  # noqa: PTH100
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *arguments], stdin=subprocess.DEVNULL, pass_fds=fds
            )
        self.connection = Connection(ours.detach())
        self._send((number, memory.facts))
        self._send(source)

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
        with contextlib.suppress(OSError):
            self.connection.send(message)  # if it is dead, the next receive says so, with the cause


def serve() -> None:
    """Main function of a worker: fill slots until the connection to the parent ends."""
    connection_fd, memory_fd, crash_fd = (int(argument) for argument in sys.argv[2:5])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # meant for the parent, which finishes its step and then ends us
    faulthandler.enable(crash_fd)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    connection = Connection(connection_fd)
    with contextlib.suppress(*_CONNECTION_ENDED):
        number, (workers, slots, slot_bytes) = connection.recv()
        memory = SharedMemory(workers, slots, slot_bytes, memory_fd)
        task_key: Key | None = None
        try:
            source: Source[Any] = connection.recv()
            while (task := connection.recv()) is not None:
                task_key, slot = task
                filled = _fill(source, memory, number, task_key, slot)
                connection.send(("made", task_key, filled))
        except _CONNECTION_ENDED:
            raise
        except BaseException as error:  # whatever it is, the parent must hear of it
            connection.send(("failed", _failure_text(error, memory.note_text(number))))


def _fill(source: Source[Any], memory: SharedMemory, number: int, key: Key, slot: int) -> Filled:
    where = f"epoch {key[0]}, step {key[1]}"
    memory.write_note(number, f"at {where}")

    def announce(case_id: str) -> None:
        memory.write_note(number, f"at case {case_id} ({where})")

    return source.fill(*key, memory.slot(slot), announce)


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
