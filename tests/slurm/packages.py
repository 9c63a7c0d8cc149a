"""Debian's SLURM, installed when it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SLURM = ("munge", "slurmctld", "slurmd", "slurm-client")
ACCOUNTING = ("slurmdbd", "mariadb-server")
_POLICY = Path("/usr/sbin/policy-rc.d")


class CannotStart(Exception):
    """The cluster cannot run on this machine; says why."""


def install(packages: tuple[str, ...]) -> None:
    """Install what is missing, without starting any service.

    Raises:
        CannotStart: not root, no Debian, or apt-get failed.
    """
    missing = [name for name in packages if not _is_installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise CannotStart(f"packages are missing ({', '.join(missing)}) and only root can install them")
    if shutil.which("apt-get") is None:
        raise CannotStart(f"packages are missing ({', '.join(missing)}) and this is no Debian")
    forbid = not _POLICY.exists()
    if forbid:  # services of freshly installed packages must not start: the cluster has its own
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        if not _apt_get("install", "-y", "--no-install-recommends", *missing):
            _apt_get("update")
            if not _apt_get("install", "-y", "--no-install-recommends", *missing):
                raise CannotStart(f"apt-get could not install {' '.join(missing)}")
    finally:
        if forbid:
            _POLICY.unlink()


def _is_installed(name: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    asked = subprocess.run(["dpkg-query", "-W", "-f=${Status}", name], capture_output=True, text=True, check=False)
    return "ok installed" in asked.stdout


def _apt_get(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "-q", *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
    return done.returncode == 0
