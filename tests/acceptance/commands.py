"""The command line and the example configurations, as a user has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.workflow.runner import ROOT, Project

SEGWRIGHT = Path(sys.executable).with_name("segwright")


def segwright(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``segwright``; the exit code is the caller's to look at."""
    return subprocess.run([SEGWRIGHT, *arguments], capture_output=True, text=True, check=False)


def must(*arguments: str | Path) -> str:
    """Run ``segwright`` and require success; gives its messages."""
    done = segwright(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def example_project(name: str, folder: Path, dataset: Path, **dataset_options: Any) -> Project:
    """A project in ``folder`` with a configuration of config/examples and one dataset."""
    config = yaml.safe_load((ROOT / "config" / "examples" / name).read_text())
    options = {**(config["datasets"] or {}).get(dataset.name, {}), **dataset_options, "path": str(dataset)}
    config["datasets"] = {dataset.name: options}
    return Project(folder, config)
