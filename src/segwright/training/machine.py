"""What the machine gives a GPU job: its device and its deadline. Imports no torch, so a GPU can still be chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from segwright.core.settings import ExecutionSettings
from segwright.training.lease import acquire_gpu, resolve_device


@contextmanager
def leased_device(execution: ExecutionSettings) -> Iterator[str]:
    """The device to use, ``cpu``, ``cuda`` or ``mps``; while the context lasts a GPU slot is held.

    Raises:
        SettingsError: the wanted device does not exist here.
    """
    lease = acquire_gpu(execution.jobs_per_gpu) if execution.device in ("auto", "cuda") else None
    try:
        yield resolve_device(execution.device)
    finally:
        if lease is not None:
            lease.release()


def seconds_left(
    execution: ExecutionSettings, runtime_min: float | None, environment: Mapping[str, str] = os.environ
) -> float | None:
    """Seconds a training may use, or None without a deadline (design, decision 8).

    ``auto`` sets a deadline only under a scheduler, where a job that ends itself is submitted again.
    """
    under_scheduler = bool(environment.get("SLURM_JOB_ID"))
    wanted = execution.deadline == "always" or (execution.deadline == "auto" and under_scheduler)
    if not wanted or runtime_min is None:
        return None
    return max(runtime_min - execution.deadline_margin_min, runtime_min / 2) * 60
