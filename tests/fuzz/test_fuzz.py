"""Two thousand mutated inputs in every test run; ``tests/acceptance/test_8_fuzz.py`` uses a hundred thousand others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.faulty import FAULTS, NAME
from tests.fuzz.runner import fuzz
from tests.fuzz.target import rng_of
from tests.fuzz.targets import REAL, TARGETS

INPUTS = 2000
SEED = 20


@pytest.mark.timeout(900)
def test_mutated_inputs_are_used_or_refused_with_one_message(tmp_path: Path) -> None:
    outcome = fuzz("mixed", SEED, 0, INPUTS, tmp_path)
    assert not outcome.findings, "\n".join(outcome.findings[:5])
    assert outcome.inputs == outcome.used + outcome.refused == INPUTS
    assert outcome.used > INPUTS / 10 and outcome.refused > INPUTS / 4, "mutations are too harsh or too weak"


def test_shares_are_a_hundred_thousand() -> None:
    assert sum(target.share for target in REAL.values()) >= 100_000


@pytest.mark.timeout(600)
def test_the_fuzzer_sees_every_fault(tmp_path: Path) -> None:
    draw, wanted, index_of = TARGETS["faulty"].prepare(), set(FAULTS), {}
    for index in range(200):
        fault = draw(rng_of("faulty", 1, index)).files[NAME].decode()
        index_of.setdefault(fault, index)
    assert set(index_of) == wanted
    said = {}
    for fault, index in index_of.items():
        outcome = fuzz("faulty", 1, index, 1, tmp_path, computing_s=0.3)
        assert outcome.inputs == 1
        said[fault] = outcome.findings[0].partition(": ")[2] if outcome.findings else ""
        kept = tmp_path / "findings" / f"faulty-1-{index}" / NAME
        assert kept.is_file() == bool(said[fault]) and (not said[fault] or kept.read_text() == fault)
    assert not said["nothing"] and not said["refused"]
    assert said["unnamed"].startswith("the message names none of")
    assert said["endless message"].startswith("a message of 10005 characters")
    assert "KeyError: 'key'" in said["exception"]
    assert said["segmentation fault"].startswith("crash: killed by SIGSEGV")
    assert said["hang"].startswith("hang: computed for too long") and "_loop" in said["hang"]
    assert "MemoryError" in said["much memory"]
    assert said["writes elsewhere"].startswith("wrote outside its folder: ['inputs', 'other']")


def test_inputs_after_a_crash_are_used(tmp_path: Path) -> None:
    draw, count = TARGETS["faulty"].prepare(), 6
    numbers = range(3000)
    faults = [draw(rng_of("faulty", 2, index)).files[NAME].decode() for index in numbers]
    crash = next(i for i in numbers if faults[i] == "segmentation fault" and "hang" not in faults[i : i + count])
    outcome = fuzz("faulty", 2, crash, count, tmp_path)
    assert outcome.inputs == count
    assert len(outcome.findings) == sum(fault not in ("nothing", "refused") for fault in faults[crash : crash + count])


@pytest.mark.parametrize("name", REAL)
def test_an_input_is_made_again_from_its_number(name: str) -> None:
    """Whatever was drawn before it, in this process or another."""
    first = REAL[name].prepare()(rng_of(name, 3, 5))
    draw = REAL[name].prepare()
    for index in range(60):
        draw(rng_of(name, 4, index))
    assert draw(rng_of(name, 3, 5)).files == first.files and first.files
