"""Run the workflow as a user does, and tell which jobs ran."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_JOB = re.compile(r"^Finished jobid: \d+ \(Rule: (\w+)\)", re.MULTILINE)
TARGETS = {"all", "inspect_all", "plan_all", "preprocess_all", "train_all", "evaluate_all", "predict_all", "report_all"}

TINY = {
    "planning": {"base_features": 4, "max_stages": 3, "max_patch_size": 32, "gpu_memory_gb": 0.05},
    "training": {"schedule": "smoke", "epochs": 1, "iterations": 2, "validation_iterations": 1, "torch_threads": 1},
    "prediction": {"mirroring": False},
}
"""Settings of the smallest run that exercises every stage."""


@dataclass
class Run:
    """What one call of Snakemake did."""

    exit_code: int
    output: str
    jobs: Counter[str] = field(default_factory=Counter)


@dataclass
class Project:
    """A working folder with a configuration, in which the workflow runs."""

    folder: Path
    config: dict[str, Any]

    def __post_init__(self) -> None:
        self.config = copy.deepcopy(self.config)  # tests edit it, and some of it is shared

    def prepare(self, *targets: str, options: tuple[str, ...] = (), cores: int = 1) -> list[str]:
        """Write the configuration; gives the command that runs Snakemake."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config_file = self.folder / "config.yaml"
        config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return [
            sys.executable, "-m", "snakemake", *targets,
            "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder),
            "--configfile", str(config_file), "--workflow-profile", str(ROOT / "profiles" / "default"),
            "--cores", str(cores), *options,
        ]  # fmt: skip

    def run(self, *targets: str, options: tuple[str, ...] = (), cores: int = 1, python_path: Path | None = None) -> Run:
        """Write the configuration and run Snakemake; jobs are counted by rule, collection targets left out."""
        command = self.prepare(*targets, options=options, cores=cores)
        environment = {**os.environ, **({"PYTHONPATH": str(python_path)} if python_path else {})}
        before = self._logs()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        # Counted in Snakemake's own log: on the terminal a job's progress bar may stand in the middle of its lines.
        finished = [_JOB.findall(path.read_text()) for path in self._logs() - before]
        jobs = Counter(name for names in finished for name in names if name not in TARGETS)
        return Run(done.returncode, done.stdout + done.stderr, jobs)

    def _logs(self) -> set[Path]:
        return set((self.folder / ".snakemake" / "log").glob("*.snakemake.log"))

    def must_run(self, *targets: str, **how: Any) -> Run:
        """Run and require success; the failure shows the end of Snakemake's output."""
        run = self.run(*targets, **how)
        assert run.exit_code == 0, run.output[-6000:]
        return run

    def json(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())
