"""Progress of long work: a bar in a terminal, plain lines at a sensible pace in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


class Bar(Protocol):
    """What a loop reports to."""

    def advance(self, what: str = "", steps: int = 1) -> None: ...


class _Lines:
    """Plain lines: the first, the last, and at most one in ten seconds between."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._started = self._last_line = time.monotonic()

    def advance(self, what: str = "", steps: int = 1) -> None:
        self._done += steps
        now = time.monotonic()
        if self._done >= self._total or now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            elapsed_s = now - self._started
            remaining_s = elapsed_s / self._done * max(self._total - self._done, 0)
            log.info(
                "%s: %d of %d%s (%.0f s, %.0f s left)",
                self._title,
                self._done,
                self._total,
                f" {what}" if what else "",
                elapsed_s,
                remaining_s,
            )


class _RichBar:
    def __init__(self, progress: object, task: object) -> None:
        self._progress, self._task = progress, task

    def advance(self, what: str = "", steps: int = 1) -> None:
        self._progress.update(self._task, advance=steps, what=what)  # type: ignore[attr-defined]


@contextmanager
def progress(title: str, total: int) -> Iterator[Bar]:
    """Show the progress of ``total`` steps under ``title``."""
    if not sys.stderr.isatty():
        yield _Lines(title, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield _RichBar(display, display.add_task(title, total=total, what=""))
