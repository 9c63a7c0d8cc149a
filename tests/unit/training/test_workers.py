"""The loader's processes: order, failures with their cause, and that none is ever left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.unit.training.stored import NumberSource

from segwright.core.errors import TrainingError
from segwright.training import worker_death
from segwright.training.workers import BatchLoader


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture(autouse=True)
def no_orphans() -> object:
    before = children()
    yield
    assert children() <= before


def test_batches_come_in_order_over_epochs() -> None:
    with BatchLoader(NumberSource(), workers=2) as loader:
        for epoch in range(2):
            batches = list(loader.epoch(epoch, 9))
            assert [int(batch.images[0, 0, 0, 0]) for batch in batches] == [100 * epoch + step for step in range(9)]
            assert [batch.case_ids[0] for batch in batches] == [f"case_{step}" for step in range(9)]
            assert all((batch.targets[1] == step).all() for step, batch in enumerate(batches))
        assert len({batch.case_ids[1] for batch in batches}) == 2  # both workers took part
        kept = batches[0].images.copy()
        next(loader.epoch(7, 3))  # another epoch than the expected one
        np.testing.assert_array_equal(batches[0].images, kept)  # delivered arrays are the receiver's own
        assert [int(batch.images[0, 0, 0, 0]) for batch in loader.epoch(5, 2)] == [500, 501]


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ("fail", r"at case case_2 \(epoch 0, step 2\): ZeroDivisionError: a bug(.|\n)*Traceback(.|\n)*_fail"),
        ("damaged", r"/store/case_2.safetensors: the file is empty; delete it and run again \(found at case case_2"),
        ("full", "at case case_2 .*: shared memory or a disk is full"),
        ("no memory", "at case case_2 .*: out of memory"),
        ("crash", r"died at case case_2 .*signal 11 \(SIGSEGV\): a crash inside compiled code(.|\n)*_crash"),
        ("kill", r"died at case case_2 .*signal 9 \(SIGKILL\): out of memory, or killed"),
        ("bus", r"died at case case_2 .*signal 7 \(SIGBUS\).*shared memory"),
        ("exit", "died at case case_2 .*exited with code 3"),
    ],
)
def test_failures_are_told_with_case_and_cause(trouble: str, expected: str) -> None:
    with BatchLoader(NumberSource(trouble), workers=1) as loader:
        batches = loader.epoch(0, 5)
        assert [int(next(batches).images[0, 0, 0, 0]) for _ in range(2)] == [0, 1]
        with pytest.raises(TrainingError, match=expected):
            next(batches)
        assert "Traceback" not in expected or trouble == "fail"
        with pytest.raises(TrainingError, match="closed"):
            next(loader.epoch(0, 1))


@pytest.mark.parametrize(("trouble", "state"), [("hang", "sleeping"), ("stop", "stopped")])
def test_a_hang_is_told(trouble: str, state: str) -> None:
    message = f"no batch came for 2 s.*{state}, at case case_0"
    with (
        BatchLoader(NumberSource(trouble, at_step=0), workers=1, stall_timeout_s=2.5) as loader,
        pytest.raises(TrainingError, match=message),
    ):
        next(loader.epoch(0, 1))


def test_slow_work_is_no_hang() -> None:
    with BatchLoader(NumberSource("work long", at_step=0), workers=1, stall_timeout_s=1.0) as loader:
        assert next(loader.epoch(3, 1)).images[0, 0, 0, 0] == 300


def test_termination_signals_are_the_parents_business() -> None:
    with BatchLoader(NumberSource("term"), workers=1) as loader:
        assert len(list(loader.epoch(0, 4))) == 4


def test_without_workers_errors_come_as_they_are() -> None:
    with BatchLoader(NumberSource("fail"), workers=0) as loader, pytest.raises(ZeroDivisionError) as caught:
        list(loader.epoch(0, 4))
    assert caught.value.__notes__ == ["at case case_2 (epoch 0, step 2)"]


def test_workers_end_when_the_parent_is_killed() -> None:
    script = (
        "import sys\n"
        "from segwright.training.workers import BatchLoader\n"
        "from tests.unit.training.stored import NumberSource\n"
        "loader = BatchLoader(NumberSource('hang', at_step=3), 2)\n"
        "batches = loader.epoch(0, 9)\n"
        "for _ in range(3): next(batches)\n"
        "print('ready', flush=True)\n"
        "next(batches)\n"  # no main guard: the module is never imported again
    )
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_workers_load_no_heavy_library() -> None:
    code = (
        "import segwright.training.workers, segwright.training.loader, segwright.preprocessing.store, sys; "
        "assert not {'torch', 'SimpleITK', 'scipy', 'pandas'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recorded_oom_kill_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_death, "oom_kills", lambda: 4)
    assert "out-of-memory killer struck" in worker_death.explain_exit(-9, 3, "")
    assert "or killed by someone" in worker_death.explain_exit(-9, 4, "")
    assert "unknown" in worker_death.explain_exit(-63, None, "")


def test_closing_is_quick_and_final() -> None:
    started = time.monotonic()
    loader = BatchLoader(NumberSource(), workers=1)
    next(loader.epoch(0, 50))
    loader.close()
    loader.close()
    assert time.monotonic() - started < 10
    with pytest.raises(TrainingError, match="closed"):
        next(loader.epoch(0, 1))
