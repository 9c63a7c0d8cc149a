"""200 SIGKILLs at random instants over whole workflow runs, in four pieces that can be run one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.recorder import Check
from tests.faults.chaos import Chaos

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(3600)]

KILLS, PIECES = 200, 4


@pytest.mark.parametrize("piece", range(PIECES))
def test_whole_runs_survive(check: Callable[[str, str], Check], tmp_path: Path, piece: int) -> None:
    row = check(
        f"7 kills {piece + 1} of {PIECES}",
        f"phantoms, 2 configurations x 2 folds x 3 epochs of 2 iterations, 2 cores; {KILLS // PIECES} SIGKILLs of "
        f"random processes (seed {piece}), the same command again after each",
    )
    with row.measured():
        chaos = Chaos(tmp_path, seed=piece, pace_s=10)
        chaos.undisturbed()
        findings = chaos.kill(KILLS // PIECES)
    row.say(findings.text())
    assert findings.lost_epochs == 0 and not findings.leftovers, findings
