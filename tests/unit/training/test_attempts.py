"""Which attempts belong together: retries of one command are counted, a new command is a new wish."""

from __future__ import annotations

from pathlib import Path

import pytest

from segwright.core.errors import TrainingError
from segwright.training import attempts as module
from segwright.training.attempts import HOPELESS_AFTER, Attempts, command_id


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


def test_kills_by_somebody_never_need_a_manual_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):  # each command is killed before its first epoch ends
        monkeypatch.setattr(module, "command_id", lambda number=number: f"command {number}")
        assert Attempts(tmp_path).begin(0).number == number + 1
    assert [attempt.ended for attempt in Attempts(tmp_path).all[:-1]] == ["killed"] * 7


def test_what_a_command_is() -> None:
    assert command_id({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "run-uuid"}) == "slurm run-uuid"
    assert command_id({}) == command_id({}) and command_id({}).startswith("process ")
