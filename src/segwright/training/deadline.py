"""When a training has to end itself: a signal, or the time limit of its job (design, decision 8)."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SAFETY = 1.15  # an epoch may take this much longer than the longest recent one


class StopSignal:
    """Context in which SIGTERM and SIGUSR1 only raise a flag; the loop looks at it after each step.

    Outside the main thread Python cannot receive signals: then the flag never rises.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING_SIGNALS:
                self._previous[number] = signal.signal(number, self._raise_flag)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name


@dataclass(frozen=True)
class Deadline:
    """The moment before which everything must be saved.

    Attributes:
        end: seconds of ``clock``; None: there is no deadline.
    """

    end: float | None
    clock: Callable[[], float] = time.monotonic

    @staticmethod
    def after(seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """So many seconds from now; None: no deadline."""
        return Deadline(None if seconds is None else clock() + seconds, clock)

    @property
    def remaining_s(self) -> float:
        """Negative once it has passed, infinite without one."""
        return float("inf") if self.end is None else self.end - self.clock()

    def fits(self, epoch_s: float | None) -> bool:
        """Whether one more epoch of about ``epoch_s`` (None: unknown) ends in time."""
        return self.remaining_s > (0.0 if epoch_s is None else SAFETY * epoch_s)
