"""A training that is killed gives the same weights as one that is not, whatever the instant (design, decision 7)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fake_training.py")


@pytest.mark.parametrize(
    ("how", "expected"), [("random", "10 kills, "), ("writes", " kills, equal weights")], ids=["random", "writes"]
)
def test_killed_trainings_end_with_equal_weights(tmp_path: Path, how: str, expected: str) -> None:
    """``random``: 10 SIGKILLs at random instants. ``writes``: one at each rename of a file, before or after it."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT), how, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout
    if how == "writes":
        assert int(result.stdout.split()[0]) >= 12  # owner, stamp, states, digests, attempts, model, figure, record
