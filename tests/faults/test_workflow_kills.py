"""A small, fixed share of the kills of whole runs (tests/acceptance/test_7_kills.py has the full number)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import Chaos

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(900)]


def test_a_run_up_to_the_preprocessed_cases_survives_six_kills(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, seed=5, pace_s=3, targets=("preprocess_all",))
    chaos.undisturbed()
    findings = chaos.kill(6)
    assert findings.kills.total() == 6 and not findings.leftovers, findings
