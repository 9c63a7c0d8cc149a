"""The dated table of acceptance results, and how a check's time and memory are measured."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from benchmarks.machine import machine_text, versions_text
from benchmarks.table import MarkdownTable

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "acceptance.md"
_SAMPLING_S = 0.5
_HEAD = """
# Acceptance

Written by `make acceptance`; each test replaces its own rows. What the checks are stands in
[the README](../README.md). Wall times are those of the machine as it was, whatever else it did. Peak memory is the
largest sum over the processes of the check, each with its share of what it shares, sampled twice a second.
"""
_COLUMNS = ("date", "check", "what was run", "result", "wall time", "peak memory", "machine", "versions")


@dataclass
class Check:
    """One row of the table. ``say`` collects what the check found; ``outcome`` is put before it."""

    name: str
    what: str
    hidden: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    peak_bytes: int = 0

    def say(self, text: str) -> None:
        """Add a line to the result. Folders of this machine are replaced by names."""
        for folder, name in self.hidden.items():
            text = text.replace(folder, name)
        self.found.append(text)

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure wall time and memory of what is started inside. Several blocks add up, the largest peak counts."""
        peak = _PeakMemory()
        started = time.monotonic()
        with peak:
            yield
        self.wall_s += time.monotonic() - started
        self.peak_bytes = max(self.peak_bytes, peak.bytes)

    def write(self, outcome: str, path: Path = RESULTS) -> None:
        """Put the row into the table."""
        MarkdownTable(path, _HEAD, _COLUMNS, key="check").put(
            {
                "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "check": self.name,
                "what was run": self.what,
                "result": "\n".join([outcome, *self.found]),
                "wall time": duration(self.wall_s),
                "peak memory": f"{self.peak_bytes / 2**20:.0f} MiB" if self.peak_bytes else "",
                "machine": machine_text(),
                "versions": versions_text(),
            }
        )


def quoted(lines: list[str]) -> str:
    """Lines of a message as one quotation; they may hold backticks themselves."""
    return f"“{' / '.join(lines)}”"


def duration(seconds: float) -> str:
    """``12 min 5 s`` or ``0.31 s``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


class _PeakMemory:
    """Samples the memory of all descendants of this process in a thread."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process(os.getpid())
        while not self._stop.wait(_SAMPLING_S):
            self.bytes = max(self.bytes, sum(_memory_bytes(child) for child in own.children(recursive=True)))


def _memory_bytes(process: psutil.Process) -> int:
    """Proportional set size where the system knows it, else resident memory; 0 for a process that ended."""
    try:
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.rss))
    except psutil.Error:
        return 0
