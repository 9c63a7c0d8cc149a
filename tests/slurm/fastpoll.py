"""Snakemake that looks at its jobs twice a second.

The SLURM executor waits 10 s longer after each look at which no job had ended, whatever its options say; on this
cluster that would be most of the run time. Only the submitting process is changed: jobs call plain Snakemake.
"""

from __future__ import annotations

import asyncio
from typing import Any

from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

INTERVAL_S = 0.5


async def _sleep(executor: Any) -> None:
    await asyncio.sleep(INTERVAL_S)


if __name__ == "__main__":
    RemoteExecutor.sleep = _sleep
    from snakemake.cli import main

    main()
