"""Why each attempt at a training ended, kept beside its state (design, decision 7).

A scheduler restarts a training many times; that is right after a time limit and wrong after the same failure thrice.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from segwright.core.errors import DamagedFileError, InterruptedForRetry, TrainingError
from segwright.core.files import read_json, write_json
from segwright.training.lock import this_process

ATTEMPTS_FILE = "attempts.json"
HOPELESS_AFTER = 3
_KINDS_ON_PURPOSE = ("finished", "keyboard")


@dataclass(frozen=True)
class Attempt:
    """One start of the training.

    Attributes:
        started_by: host, process, job and time.
        epochs_at_start, epochs_at_end: saved epochs.
        ended: ``finished``, ``interrupted`` (signal or deadline), ``keyboard``, ``out_of_memory``, ``error`` or
            ``killed`` (found out by the next attempt); None while it runs.
        cause: one sentence.
        peak_memory_mb: largest resident memory of this process and of any one of its ended children.
    """

    number: int
    started_by: dict[str, Any]
    epochs_at_start: int
    epochs_at_end: int
    ended: str | None = None
    cause: str = ""
    peak_memory_mb: int = 0

    @property
    def made_nothing(self) -> bool:
        return self.ended not in _KINDS_ON_PURPOSE and self.epochs_at_end <= self.epochs_at_start


class Attempts:
    """The list in ``attempts.json``. Use as a context around the training: the way it is left is recorded."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ATTEMPTS_FILE
        self.all: list[Attempt] = []
        with contextlib.suppress(DamagedFileError, TypeError):  # a lost record only costs the count
            self.all = [Attempt(**entry) for entry in read_json(self.path)]

    def begin(self, saved_epochs: int) -> Attempt:
        """Record a new attempt; an earlier one without an end was killed.

        Raises:
            TrainingError: the last three attempts made no new epoch; names the recorded cause.
        """
        if self.all and self.all[-1].ended is None:
            last = self.all[-1]
            self.all[-1] = replace(last, ended="killed", cause=_killed(last), epochs_at_end=saved_epochs)
            self._write()
        recent = self.all[-HOPELESS_AFTER:]
        if len(recent) == HOPELESS_AFTER and all(attempt.made_nothing for attempt in recent):
            raise TrainingError(
                f"{self.path}: the last {HOPELESS_AFTER} attempts made no new epoch; the last one ended because: "
                f"{recent[-1].cause} Mend that, then delete {self.path} and run again"
            )
        attempt = Attempt(len(self.all) + 1, this_process(), saved_epochs, saved_epochs)
        self.all.append(attempt)
        self._write()
        return attempt

    def saved(self, epochs: int) -> None:
        """A state with so many epochs is on disk."""
        self.all[-1] = replace(self.all[-1], epochs_at_end=epochs, peak_memory_mb=peak_memory_mb())
        self._write()

    def __enter__(self) -> Attempts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended, cause = _classify(error)
        self.all[-1] = replace(self.all[-1], ended=ended, cause=cause, peak_memory_mb=peak_memory_mb())
        self._write()

    def _write(self) -> None:
        write_json(self.path, [asdict(attempt) for attempt in self.all])


class OutOfMemory(TrainingError):
    """The device's memory is too small."""


def peak_memory_mb() -> int:
    """Largest resident memory so far, of this process or of one ended child, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    usages = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(max(usages) * unit / 2**20)


def _classify(error: BaseException | None) -> tuple[str, str]:
    if error is None:
        return "finished", ""
    if isinstance(error, KeyboardInterrupt):
        return "keyboard", "Interrupted at the keyboard."
    text = str(error) or type(error).__name__
    if isinstance(error, InterruptedForRetry):
        return "interrupted", text
    if isinstance(error, (OutOfMemory, MemoryError)) or (isinstance(error, TrainingError) and "out of memory" in text):
        return "out_of_memory", text
    return "error", text if isinstance(error, TrainingError) else f"{type(error).__name__}: {text}"


def _killed(attempt: Attempt) -> str:
    where = attempt.started_by.get("job") or attempt.started_by.get("pid")
    return (
        f"Killed without a word on {attempt.started_by.get('host')} (job or process {where}): time limit, "
        f"memory limit, node failure or kill -9; largest memory seen {attempt.peak_memory_mb} MB."
    )
