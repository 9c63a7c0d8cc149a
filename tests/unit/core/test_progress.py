"""Progress: plain lines at a sensible pace in a log, a bar in a terminal."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from segwright.core import progress as module
from segwright.core.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return now


def test_lines_come_at_most_every_ten_seconds_and_at_the_end(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with progress("preprocess", 10) as bar:
        for case in range(10):
            clock[0] += 4.0
            bar.advance(f"case_{case}")
    assert [record.getMessage() for record in caplog.records] == [
        "preprocess: 3 of 10 case_2 (12 s, 28 s left)",
        "preprocess: 6 of 10 case_5 (24 s, 16 s left)",
        "preprocess: 9 of 10 case_8 (36 s, 4 s left)",
        "preprocess: 10 of 10 case_9 (40 s, 0 s left)",
    ]


def test_several_steps_at_once(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress("predict", 5) as bar:
        bar.advance(steps=5)
    assert [record.getMessage() for record in caplog.records] == ["predict: 5 of 5 (0 s, 0 s left)"]


def test_nothing_to_do_says_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress("predict", 0):
        pass
    assert caplog.records == []


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("inspect", 3) as bar:
        for case in range(3):
            bar.advance(f"case_{case}")
    assert "inspect" in terminal.getvalue() and "3/3" in terminal.getvalue()
    assert caplog.records == []
