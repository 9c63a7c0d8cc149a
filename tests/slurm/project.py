"""A tiny project that runs on the test cluster with the project's own SLURM profile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from segwright.core.files import file_digest
from tests.slurm.cluster import Cluster
from tests.workflow.runner import ROOT, TARGETS, TINY

NAME = "Dataset900_Phantom"
FOLD = f"results/{NAME}/default/2d/fold_0"
MODEL = f"{FOLD}/model.safetensors"
EPOCHS = 10
HERE = Path(__file__).resolve().parent
_FINISHED = re.compile(r"^Finished jobid: \d+ \(Rule: (\w+)\)", re.MULTILINE)
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "DEADLINE")


def tiny_config(data: Path, **execution: Any) -> dict[str, Any]:
    """One batch, 2d, two folds; ``auto`` asks for a GPU and computes on the CPU where torch finds none."""
    training = {**TINY["training"], "configurations": ["2d"], "loss": "paced", "epochs": EPOCHS}
    return {
        "datasets": {NAME: {"path": str(data), "splits": {"folds": 2}, "batches": 1}},
        "defaults": {**TINY, "training": training},
        "execution": {"device": "auto", "gpu_job_threads": 2, "loader_workers": 0, "train_mem_mb": 1500,
                      "predict_mem_mb": 1500, **execution},
        "plugins": [str(HERE / "pace.py")],
    }  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One job as SLURM saw it (``scontrol show job``)."""

    facts: dict[str, str]

    @property
    def id(self) -> str:
        return self.facts["JobId"]

    @property
    def rule(self) -> str:
        comment = self.facts.get("Comment", "")
        return comment.removeprefix("rule_").split("_wildcards_")[0]

    @property
    def state(self) -> str:
        return self.facts["JobState"]

    @property
    def node(self) -> str:
        return self.facts["NodeList"]

    @property
    def gpus(self) -> str:
        """What was asked for: ``gres:gpu:1`` by --gpus, ``gres:gpu:made_up:1`` with a model; empty without."""
        return self.facts.get("TresPerJob", "") or self.facts.get("TresPerNode", "")

    @property
    def minutes(self) -> int:
        hours, minutes, _ = self.facts["TimeLimit"].split("-")[-1].split(":")
        days = int(self.facts["TimeLimit"].split("-")[0]) if "-" in self.facts["TimeLimit"] else 0
        return (days * 24 + int(hours)) * 60 + int(minutes)

    @property
    def memory_mb(self) -> int:
        text = self.facts["MinMemoryNode"]
        return round(float(text[:-1]) * 1024) if text.endswith("G") else int(text.removesuffix("M"))

    @property
    def interval(self) -> tuple[str, str]:
        return self.facts["StartTime"], self.facts["EndTime"]


@dataclass
class SlurmRun:
    """A Snakemake that submits, under way or ended."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def jobs(self) -> Counter[str]:
        return Counter(name for name in _FINISHED.findall(self.output) if name not in TARGETS)

    def wait(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)

    def must_succeed(self, seconds: float = 300) -> None:
        code = self.wait(seconds)
        assert code == 0, f"exit code {code}\n{self.output[-6000:]}"

    def interrupt(self) -> float:
        """Ctrl-C, which reaches local jobs too; gives the seconds until it was gone."""
        started = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        return time.monotonic() - started

    def end(self) -> None:
        """Whatever a failed test left."""
        if self.process.poll() is None:
            self.interrupt()


def hear_interrupts() -> None:
    """A shell starts what it puts into the background deaf to Ctrl-C, and all its descendants inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class SlurmProject:
    """A working folder, the cluster, and the partition of two nodes it may use."""

    folder: Path
    config: dict[str, Any]
    cluster: Cluster
    partition: str
    runs: list[SlurmRun] = field(default_factory=list)

    # --- running ---

    def profile(self, **options: Any) -> Path:
        """profiles/slurm as its users have it: partition set, nothing else changed but ``options`` (None: left out)."""
        text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
        text, found = re.subn(r"  # slurm_partition: \w+", f"  slurm_partition: {self.partition}", text)
        assert found == 1, "the profile has no line for the partition"
        profile = yaml.safe_load(text)
        for name, value in options.items():
            profile[name.replace("_", "-")] = value
        profile = {name: value for name, value in profile.items() if value is not None}
        folder = self.folder / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
        return folder

    def start(self, *targets: str, options: tuple[str, ...] = (), **profile: Any) -> SlurmRun:
        """Snakemake on the cluster, as a user calls it, but looking at its jobs often."""
        command = [
            str(HERE / "fastpoll.py"), *targets, *self._common(), "--workflow-profile", str(self.profile(**profile)),
            "--slurm-init-seconds-before-status-checks", "1", "--slurm-keep-successful-logs", *options,
        ]  # fmt: skip
        return self._start(command)

    def start_locally(self, *targets: str, cores: int = 1) -> SlurmRun:
        profile = str(ROOT / "profiles" / "default")
        return self._start(["-m", "snakemake", *targets, *self._common(), "--workflow-profile", profile,
                            "--cores", str(cores)])  # fmt: skip

    def _common(self) -> list[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        return ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder),
                "--configfile", str(self.folder / "config.yaml")]  # fmt: skip

    def _start(self, arguments: list[str]) -> SlurmRun:
        log = self.folder / f"snakemake_{len(self.runs)}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=stream, stderr=stream, env=self.cluster.environment,
                cwd=self.folder, start_new_session=True, preexec_fn=hear_interrupts,
            )  # fmt: skip
        self.runs.append(SlurmRun(process, log))
        return self.runs[-1]

    def copy(self, folder: Path, partition: str, **execution: Any) -> SlurmProject:
        """The same results elsewhere."""
        shutil.copytree(self.folder, folder, symlinks=True)
        config = {**self.config, "execution": {**self.config["execution"], **execution}}
        return SlurmProject(folder, config, self.cluster, partition)

    # --- looking ---

    def jobs(self, rule: str | None = None) -> list[Job]:
        """All jobs of this folder that SLURM remembers, oldest first."""
        jobs = []
        for line in self.cluster.call("scontrol", "show", "jobs", "-o").splitlines():
            job = Job(dict(re.findall(r"(\S+?)=(\S*)", line)))
            if job.facts.get("WorkDir") == str(self.folder) and rule in (None, job.rule):
                jobs.append(job)
        return sorted(jobs, key=lambda job: int(job.id))

    def active_jobs(self) -> list[Job]:
        return [job for job in self.jobs() if job.state not in _ENDED]

    def attempts(self) -> list[dict[str, Any]]:
        path = self.folder / FOLD / "state" / "attempts.json"
        return list(json.loads(path.read_text())) if path.is_file() else []

    def saved_epochs(self) -> int:
        attempts = self.attempts()
        return int(attempts[-1]["epochs_at_end"]) if attempts else 0

    def trainer(self) -> psutil.Process:
        """The training that runs now."""
        return psutil.Process(json.loads((self.folder / FOLD / "state" / "owner.json").read_text())["pid"])

    def wait_until_gone(self, process: psutil.Process) -> None:
        """SLURM calls a job ended while its processes have KillWait seconds left."""
        self.wait_for(
            "the training is gone",
            lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
            60,
        )

    def weights(self) -> str:
        return file_digest(self.folder / MODEL)

    def set_pace(self, seconds: float) -> None:
        """How long every call of the loss takes, from the next one on."""
        (self.folder / "pace").write_text(str(seconds))

    def wait_for(self, what: str, done: Callable[[], bool], seconds: float = 120) -> float:
        """Wait until it is so, or fail with what Snakemake said; gives the seconds it took."""
        started = time.monotonic()
        while not done():
            if time.monotonic() - started > seconds:
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.story()}")
            time.sleep(0.25)
        return time.monotonic() - started

    def story(self) -> str:
        """What there is to read after a failure."""
        texts = [run.output[-3000:] for run in self.runs]
        logs = sorted(self.folder.glob("results/logs/**/*.log"), key=lambda path: path.stat().st_mtime)[-4:]
        texts += [f"--- {path.relative_to(self.folder)}\n{path.read_text(errors='replace')[-1500:]}" for path in logs]
        return "\n".join(texts)

    def end(self) -> None:
        for run in self.runs:
            run.end()
        for job in self.active_jobs():
            self.cluster.call("scancel", job.id, check=False)
