"""Freed arrays are used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import numpy as np
from segwright.core.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    np.ones(1 << 21)  # 16 MiB
    np.ones(1 << 23)  # 64 MiB

told = TOLD
use()
before = faults()
for _ in range(5):
    use()
print(faults() - before, told)
"""


def _page_faults(told: str) -> tuple[int, bool]:
    program = _PROGRAM.replace("TOLD", told)
    # huge pages would hide the difference
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={"NUMPY_MADVISE_HUGEPAGE": "0"})
    count, answer = done.stdout.split()
    return int(count), answer == "True"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_memory_is_not_asked_for_again() -> None:
    usual, _ = _page_faults("False")
    kept, told = _page_faults("keep_freed_memory()")
    if told:
        assert usual > 50_000  # 5 times 80 MiB in pages of 4 KiB
        assert kept < usual / 20
    else:
        assert kept == pytest.approx(usual, rel=0.1)
