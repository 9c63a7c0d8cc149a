"""How often a job ran out of the memory it had asked for, so that its next attempt asks for more (design, decision 8).

A process that the kernel ends for want of memory can write nothing down; the scheduler says so in the job's log. Only
jobs since the workflow started count: a new run begins with what is set, which may have been raised meanwhile.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_SAID_BY_SLURM = re.compile(r"oom[-_ ]kill|\bout[ _]of[ _]memory handler", re.IGNORECASE)
_LAST_BYTES = 20_000
_MOST_DOUBLINGS = 5


def raised_memory_mb(asked_mb: int, job_logs: Path, since: float) -> int:
    """``asked_mb``, doubled for every earlier attempt that ran out of memory.

    Args:
        job_logs: folder with one log of the scheduler for each attempt.
        since: logs that did not change after this moment are those of another run; seconds since 1970.
    """
    times = sum(_says_out_of_memory(log, since) for log in job_logs.glob("*.log"))
    return asked_mb * 2 ** min(times, _MOST_DOUBLINGS)


def _says_out_of_memory(log: Path, since: float) -> bool:
    with contextlib.suppress(OSError):
        facts = log.stat()
        if facts.st_mtime < since:
            return False
        with log.open("rb") as stream:
            stream.seek(max(facts.st_size - _LAST_BYTES, 0))
            return _SAID_BY_SLURM.search(stream.read().decode("utf-8", "replace")) is not None
    return False
