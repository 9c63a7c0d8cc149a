"""Why each attempt at a training ended, kept beside its state (design, decision 7).

A scheduler restarts a training many times; that is right after a time limit and wrong after the same failure thrice.
A person who gives the command once more wants it tried once more: only attempts of one command are counted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from segwright.core.errors import DamagedFileError, InterruptedForRetry, TrainingError
from segwright.core.files import read_json, write_json
from segwright.slurm import job_name
from segwright.training.lock import this_process

ATTEMPTS_FILE = "attempts.json"
HOPELESS_AFTER = 3
_KINDS_ON_PURPOSE = ("finished", "keyboard")


@dataclass(frozen=True)
class Attempt:
    """One start of the training.

    Attributes:
        started_by: host, process, job, time, and the command it belongs to (:func:`command_id`).
        epochs_at_start, epochs_at_end: saved epochs.
        ended: ``finished``, ``interrupted`` (signal or deadline), ``keyboard``, ``out_of_memory``, ``error`` or
            ``killed`` (found out by the next attempt); None while it runs.
        cause: one sentence.
        peak_memory_mb: largest resident memory of this process and of any one of its ended children.
        checking: it was interrupted while it compared the data with their digests; the next one has fewer to compare.
    """

    number: int
    started_by: dict[str, Any]
    epochs_at_start: int
    epochs_at_end: int
    ended: str | None = None
    cause: str = ""
    peak_memory_mb: int = 0
    checking: bool = False

    @property
    def made_nothing(self) -> bool:
        on_purpose = self.ended in _KINDS_ON_PURPOSE or self.checking
        return not on_purpose and self.epochs_at_end <= self.epochs_at_start


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
            TrainingError: the last three attempts of this command made no new epoch; names the recorded cause.
        """
        started_by = {**this_process(), "command": command_id()}
        if self.all and self.all[-1].ended is None:
            last = self.all[-1]
            self.all[-1] = replace(last, ended="killed", cause=_killed(last), epochs_at_end=saved_epochs)
            self._write()
        hopeless = self.hopeless(started_by["command"])
        if hopeless:
            raise TrainingError(hopeless)
        attempt = Attempt(len(self.all) + 1, started_by, saved_epochs, saved_epochs)
        self.all.append(attempt)
        self._write()
        return attempt

    def hopeless(self, command: str) -> str | None:
        """Why a further attempt of this command (:func:`command_id`) would be in vain, and what to do; else None."""
        recent = self.all[-HOPELESS_AFTER:]
        same = all(attempt.started_by.get("command") == command for attempt in recent)
        if len(recent) < HOPELESS_AFTER or not same or not all(attempt.made_nothing for attempt in recent):
            return None
        cause = recent[-1].cause or _killed(recent[-1])
        return (
            f"{self.path}: the last {HOPELESS_AFTER} attempts made no new epoch; the last one ended because: {cause} "
            f"Mend that and give the command again (inside the same job: delete {self.path})"
        )

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
        last = replace(self.all[-1], ended=ended, cause=cause, peak_memory_mb=peak_memory_mb())
        self.all[-1] = replace(last, checking=isinstance(error, InterruptedWhileChecking))
        self._write()

    def _write(self) -> None:
        write_json(self.path, [asdict(attempt) for attempt in self.all])


class InterruptedWhileChecking(InterruptedForRetry):
    """Ended before the first epoch, and yet no failure: what was found intact by then is noted."""


class OutOfMemory(TrainingError):
    """The device's memory is too small."""


def slurm_command_id(job_name: str) -> str:
    """Under SLURM a command is known by the name of its jobs, which Snakemake draws anew for every run."""
    return f"slurm {job_name}"


def command_id(environment: Mapping[str, str] = os.environ) -> str:
    """The command this process works for; its automatic retries share it.

    Under SLURM :func:`slurm_command_id`; else the Snakemake process above this one; else this process.
    """
    job_id = environment.get("SLURM_JOB_ID")
    if job_id:
        return slurm_command_id(job_name(job_id) or f"of job {job_id}")
    own = psutil.Process()
    found = own
    for parent in own.parents():
        with contextlib.suppress(psutil.Error):
            if any(Path(part).name == "snakemake" for part in parent.cmdline()[:3]):
                found = parent
    return f"process {found.pid} since {found.create_time():.2f}"


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
