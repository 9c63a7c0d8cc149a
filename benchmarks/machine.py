"""What a measurement ran on, in words."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PEER_PACKAGES = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "numpy", "torch")
PACKAGES = ("numpy", "torch", "snakemake")


def machine_text() -> str:
    """Such as ``2 x AMD EPYC, 24 GiB, Linux``."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {_cpu_model()}, {memory_gib:.0f} GiB, {platform.system()}"


def versions_text(packages: tuple[str, ...] = PACKAGES) -> str:
    """Such as ``segwright 0.1.0 (a1b2c3d+), Python 3.11.2, numpy 2.4.6``; a plus means uncommitted changes."""
    own = f"segwright {importlib.metadata.version('segwright')}{_commit()}"
    others = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join([own, f"Python {platform.python_version()}", *others])


@functools.cache
def peer_versions_text(python: Path, packages: tuple[str, ...] = PEER_PACKAGES) -> str:
    """Such as ``peer: nnunetv2 2.8.1, torch 2.13.0``, asked of the interpreter it is installed for."""
    code = (
        "import sys, importlib.metadata as m;"
        "there = {d.metadata['Name'].lower(): d.version for d in m.distributions()};"
        "print(', '.join(f'{n} {there[n]}' for n in sys.argv[1:] if n in there))"
    )
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return f"peer: {done.stdout.strip()}"


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> str:
    """`` (commit)`` of the checkout this file lies in, with a plus if it was edited; empty without git."""
    root = Path(__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "--short", "HEAD")
    edited = _git(root, "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    return f" ({commit}{'+' if edited else ''})" if commit else ""


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
