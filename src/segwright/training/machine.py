"""What the machine gives a GPU job: its device and its deadline. Imports no torch, so a GPU can still be chosen."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from segwright.core.settings import ExecutionSettings
from segwright.training.lease import acquire_gpu, resolve_device, why_no_cuda

log = logging.getLogger(__name__)


@contextmanager
def leased_device(execution: ExecutionSettings) -> Iterator[str]:
    """The device to use, ``cpu``, ``cuda`` or ``mps``; while the context lasts a GPU slot is held.

    Raises:
        SettingsError: the wanted device does not exist here.
    """
    lease = acquire_gpu(execution.jobs_per_gpu) if execution.device in ("auto", "cuda") else None
    try:
        device = resolve_device(execution.device)
        if lease is not None and device == "cpu":
            log.warning("torch cannot use the GPU %s, so the CPU is used: %s", lease.gpu, why_no_cuda())
            lease.release()
        yield device
    finally:
        if lease is not None:
            lease.release()


def seconds_left(
    execution: ExecutionSettings,
    runtime_min: float | None,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> float | None:
    """Seconds a training may use, or None without a deadline (design, decision 8).

    ``auto`` sets a deadline only under a scheduler, where a job that ends itself is submitted again. The limit is what
    was asked for; where SLURM says when the job ends (newer than 22.05) and that is sooner, it is that.

    Args:
        runtime_min: time limit the job asked for, in minutes.
        clock: seconds since 1970.
    """
    under_scheduler = bool(environment.get("SLURM_JOB_ID"))
    wanted = execution.deadline == "always" or (execution.deadline == "auto" and under_scheduler)
    limits_s = [] if runtime_min is None else [runtime_min * 60]
    end = environment.get("SLURM_JOB_END_TIME", "")
    if under_scheduler and end.isdigit():
        limits_s.append(max(int(end) - clock(), 0))
    if not wanted or not limits_s:
        return None
    limit_s = min(limits_s)
    return max(limit_s - execution.deadline_margin_min * 60, limit_s / 2)
