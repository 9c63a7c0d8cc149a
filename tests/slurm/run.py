"""`make test-slurm`: start the cluster, run the tests at the same time, stop the cluster whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.slurm.cluster import running_cluster
from tests.slurm.conftest import CLUSTER_VARIABLE, cluster_layout
from tests.slurm.packages import CannotStart

TESTS_AT_ONCE = 8


def main(arguments: list[str]) -> int:
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="segwright-slurm-"))
    try:
        with running_cluster(folder, cluster_layout()) as cluster:
            kind = "control groups" if cluster.layout.cgroups else "no control groups: memory is only booked"
            print(f"SLURM is up after {time.monotonic() - started:.0f} s ({kind})", flush=True)
            command = [
                sys.executable, "-m", "pytest", "-m", "slurm and not acceptance", "tests/slurm", "--durations=0",
                "-n", str(TESTS_AT_ONCE), "--dist", "worksteal", "--basetemp", str(folder / "tests"), *arguments,
            ]  # fmt: skip
            code = subprocess.run(command, env={**os.environ, CLUSTER_VARIABLE: str(folder)}, check=False).returncode
            if code:
                print(cluster.logs())
    except CannotStart as problem:
        print(f"the test cluster does not start ({folder}): {problem}", file=sys.stderr)
        return 1
    if code:
        print(f"what the tests left lies in {folder}")
    else:
        shutil.rmtree(folder)
    print(f"test-slurm took {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
