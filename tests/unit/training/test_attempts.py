"""Which attempts belong together: retries of one command are counted, a new command is a new wish."""

from __future__ import annotations

from pathlib import Path

import pytest

from segwright.core.errors import InterruptedForRetry, TrainingError
from segwright.training import attempts as module
from segwright.training.attempts import (
    HOPELESS_AFTER,
    Attempts,
    InterruptedWhileChecking,
    command_id,
    slurm_command_id,
)


def fail(folder: Path) -> None:
    attempts = Attempts(folder)
    attempts.begin(0)
    with pytest.raises(ValueError, match="again"), attempts:
        raise ValueError("again")


def test_retries_of_one_command_end_with_the_cause_and_a_new_command_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("first", "second"):
        monkeypatch.setattr(module, "command_id", lambda command=command: command)
        for _ in range(HOPELESS_AFTER):
            fail(tmp_path)
        with pytest.raises(TrainingError, match=r"last 3 attempts made no new epoch.*ValueError: again"):
            Attempts(tmp_path).begin(0)


def test_ends_while_data_are_checked_are_no_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them left fewer files to check, however often a scheduler ends them."""
    monkeypatch.setattr(module, "command_id", lambda: "one")
    for error in [InterruptedWhileChecking("signal")] * 4 + [InterruptedForRetry("signal")] * HOPELESS_AFTER:
        attempts = Attempts(tmp_path)
        attempts.begin(0)
        with pytest.raises(type(error)), attempts:
            raise error
    assert [attempt.ended for attempt in Attempts(tmp_path).all] == ["interrupted"] * (4 + HOPELESS_AFTER)
    with pytest.raises(TrainingError, match="last 3 attempts made no new epoch"):
        Attempts(tmp_path).begin(0)


def test_kills_by_somebody_never_need_a_manual_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):  # each command is killed before its first epoch ends
        monkeypatch.setattr(module, "command_id", lambda number=number: f"command {number}")
        assert Attempts(tmp_path).begin(0).number == number + 1
    assert [attempt.ended for attempt in Attempts(tmp_path).all[:-1]] == ["killed"] * 7


def test_what_a_command_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM_JOB_NAME is the program's name in a job step: the same for all commands."""
    monkeypatch.setenv("PATH", str(tmp_path))
    step = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "python"}
    assert command_id(step) == "slurm of job 7", "without squeue every job is a command"
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$2" = --jobs=7 ] && echo run-uuid\n')
    squeue.chmod(0o755)
    assert command_id(step) == slurm_command_id("run-uuid") == "slurm run-uuid"
    assert command_id({}) == command_id({}) and command_id({}).startswith("process ")


def test_hopeless_is_known_before_another_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler asks while the third attempt, killed without a word, still seems to run."""
    monkeypatch.setattr(module, "command_id", lambda: "one")
    fail(tmp_path)
    fail(tmp_path)
    assert Attempts(tmp_path).hopeless("one") is None
    Attempts(tmp_path).begin(0)
    assert "Killed without a word" in (Attempts(tmp_path).hopeless("one") or "")
    assert Attempts(tmp_path).hopeless("another") is None
    running = Attempts(tmp_path)
    running.saved(1)
    assert Attempts(tmp_path).hopeless("one") is None, "it made an epoch"
