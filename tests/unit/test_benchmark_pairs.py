"""What the benchmark measures and how it judges: CPU of children, peak memory, ratios, goals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmarks.measure import Measurement, Worker, run_command
from benchmarks.pairs import Command, Function, Goal, Pair, Place, measured_row, row_of, time_text

PYTHON = Path(sys.executable)
MIB_64 = 64 << 20
CHILD_OF_A_CHILD = (
    "import subprocess, sys;"
    "subprocess.run([sys.executable, '-c', 'x = 0\\nfor i in range(6_000_000): x += i'], check=True)"
)


def make_array(mib: int) -> Callable[[], np.ndarray]:
    """The side of a pair, as a worker imports it."""
    return lambda: np.ones(mib << 20, np.uint8)[: 1 << 10]


def make_failure() -> Callable[[], None]:
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    return fail


def place(work: Path) -> Place:
    return Place(work, work, PYTHON, PYTHON, pairs=2)


def measurements(*values: tuple[float, float]) -> list[Measurement]:
    return [Measurement(cpu_s, 10.0, mib) for cpu_s, mib in values]


def test_time_and_memory_of_a_command_include_its_children() -> None:
    alone = run_command([PYTHON, "-c", "pass"])
    busy = run_command([PYTHON, "-c", CHILD_OF_A_CHILD])
    large = run_command([PYTHON, "-c", f"import time; x = bytearray(b'1' * {MIB_64}); time.sleep(0.3)"])
    assert busy.cpu_s > alone.cpu_s + 0.1
    assert large.memory_mib > alone.memory_mib + 60


def test_a_failing_command_says_what_it_wrote() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ended with 3.*broken"):
        run_command([PYTHON, "-c", "import sys; print('broken'); sys.exit(3)"])


def test_a_worker_measures_a_function_and_keeps_its_result(tmp_path: Path) -> None:
    name = f"{__name__}:make_array"
    with Worker(PYTHON, name, {"mib": 8}) as small, Worker(PYTHON, name, {"mib": 128}) as large:
        few, many = small.call(tmp_path / "few"), large.call()
        again = large.call()
    assert np.load(tmp_path / "few.npy").shape == (1024,)
    assert many.memory_mib > few.memory_mib + 100
    assert again.memory_mib == pytest.approx(many.memory_mib, abs=20)  # the peak of one call, not of all


def test_an_error_in_a_worker_reaches_the_benchmark() -> None:
    with Worker(PYTHON, f"{__name__}:make_failure", {}) as worker, pytest.raises(RuntimeError, match="on purpose"):
        worker.call()


def test_a_row_holds_medians_of_pairs_and_what_is_missed(tmp_path: Path) -> None:
    pair = Pair(
        "stage", Command(()), Command(()), Goal(ratio=4, memory_share=0.5), Goal(ratio=6), per_run=(10, "patches")
    )
    row = row_of(
        pair,
        measurements((10, 400), (12, 400), (50, 400)),
        measurements((2, 100), (2, 300), (2, 300)),
        "",
        place(tmp_path),
    )
    assert row["times faster"] == "6 (5 to 25; 3 pairs)"
    assert row["segwright"] == "200 ms CPU (5 patches/s)"
    assert row["segwright's memory"] == "300 MiB (0.75)"
    assert row["holds"] == "**no** (memory)"


@pytest.mark.parametrize(
    ("ratio", "seconds", "mib", "missed"),
    [(3.9, 0.4, 100, ["ratio"]), (4, 0.5, 100, ["time"]), (5, 0.4, 512, ["memory"]), (5, 0.4, 100, [])],
)
def test_goals(ratio: float, seconds: float, mib: float, missed: list[str]) -> None:
    assert Goal(ratio=4, seconds=0.5, memory_mib=512).missed(ratio, seconds, mib, 1000) == missed
    assert Goal().missed(0.1, 99, 9999, 1) == []


def test_a_whole_pair(tmp_path: Path) -> None:
    """A command against a function; the result of the function is compared."""
    command = Command(((PYTHON, "-c", "pass"),), outcome=tmp_path)
    function = Function(f"{__name__}:make_array", {"mib": 1}, fresh=True)
    compared: list[Path] = []

    def difference(ours: Path, peers: Path) -> str:
        compared.extend((ours, peers))
        return "none"

    row = measured_row(Pair("stage", command, function, Goal(ratio=1), Goal(), difference), place(tmp_path))
    assert row["stage"] == "stage" and row["difference"] == "none"
    assert [path.name for path in compared] == ["ours.npy", tmp_path.name]


def test_time_text() -> None:
    assert time_text(0.0123) == "12.3 ms CPU"
    assert time_text(12.3, wall=True) == "12.3 s wall"
