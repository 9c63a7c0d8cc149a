"""Kill random processes of a whole workflow run, give the same command again, and compare what comes out.

A *history* is one results folder from the first command to the last product. Its run is hit by SIGKILLs at random
instants: Snakemake itself, a job, the shell around a job, or a process that loads batches. After a kill the same
command is given again, at once, so that orphans of the killed run are often still at work. The only other command is
the ``--unlock`` that ``segwright status`` asks for. Histories follow each other until the wanted number of kills is
reached; each must end with the products of an undisturbed run, byte by byte.

    python -m tests.faults.chaos --kills 50 --seed 1 --folder FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from segwright.core.files import TEMPORARY_PREFIX, file_digest
from segwright.phantom import make_phantom
from segwright.status import status_lines
from tests.workflow.runner import Project

NAME = "Dataset900_Phantom"
EPOCHS = 3
_REFUSED = "another training is writing here"
_RUN_LIMIT_S = 1800.0
_LOOK_EVERY_S = 0.2
_SCRIPT = re.compile(r"tmp\w+\.(\w+)\.py")
_PRODUCTS = (
    *("data/preprocessed/*/*.json", "data/preprocessed/*/cases/*.safetensors", "data/splits/*", "data/*.json"),
    *("default/*/fold_*/model.safetensors", "default/*/fold_*/*.json", "default/*/fold_*/validation/*.nii.gz"),
    *("default/*/crossval/summary.json", "default/ensembles/*/summary.json", "default/plan/*", "default/selection/*"),
    *("default/postprocessing.json", "default/final/*", "default/model/**/*", "default/model.zip"),
)
"""What must be equal, below the dataset's folder."""


@dataclass
class Findings:
    """What the kills did."""

    kills: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    histories: int = 0
    commands: int = 0
    unlocks: int = 0
    refusals: int = 0
    attempts: int = 0
    lost_epochs: int = 0
    leftovers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def text(self) -> str:
        """One paragraph for a table of results."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.kills.most_common())
        jobs = ", ".join(f"{rule} {number}" for rule, number in self.jobs.most_common())
        return (
            f"{self.kills.total()} SIGKILLs ({kinds}; jobs hit: {jobs}) in {self.histories} histories of "
            f"{self.commands} commands; {self.unlocks} times `--unlock` as `segwright status` says, {self.refusals} "
            f"times a training refused because an orphan still ran; {self.attempts} attempts at trainings, "
            f"{self.lost_epochs} saved epochs lost; every product equal to the undisturbed run's"
        )


class Chaos:
    """The undisturbed run, and histories of killed ones.

    Args:
        folder: where everything is made.
        seed: of the victims and instants.
        pace_s: a kill comes at a random instant within so many CPU seconds of the run after the command or the kill
            before it; CPU time is the same on a busy machine.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        pace_s: float,
        configurations: Sequence[str] = ("2d", "3d_fullres"),
        targets: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.pace_s = folder, pace_s
        self.random = random.Random(seed)
        self.findings = Findings()
        self.data = folder / "data" / NAME
        self.configurations, self.targets = configurations, targets
        if not self.data.exists():
            make_phantom("plain", 4, seed=1, output=self.data, test_cases=1)
        self.wanted: dict[str, str] = {}

    def project(self, name: str) -> Project:
        config = {
            "datasets": {NAME: {"path": str(self.data), "splits": {"folds": 2}, "batches": 1}},
            "defaults": {
                "planning": {"base_features": 4, "max_stages": 3, "max_patch_size": 32, "gpu_memory_gb": 0.05},
                "training": {
                    "schedule": "smoke", "epochs": EPOCHS, "iterations": 2, "validation_iterations": 1,
                    "torch_threads": 1, "configurations": list(self.configurations),
                },
                "prediction": {"mirroring": False},
            },
            "execution": {"device": "cpu", "loader_workers": 1},
        }  # fmt: skip
        return Project(self.folder / name, config)

    def undisturbed(self) -> float:
        """Run once without kills; gives the seconds it took."""
        project = self.project("undisturbed")
        started = time.monotonic()
        project.must_run(*self.targets, cores=2)
        self.wanted = products(project)
        assert self.wanted and (self.targets or "default/model.zip" in self.wanted), sorted(self.wanted)
        return time.monotonic() - started

    def kill(self, kills: int, limit_s: float = float("inf")) -> Findings:
        """Histories until so many processes were killed, or no new one after ``limit_s``; the last one is finished."""
        started = time.monotonic()
        while self.findings.kills.total() < kills and time.monotonic() - started < limit_s:
            self.findings.histories += 1
            self._history(f"history_{self.findings.histories}", kills)
        self.findings.seconds = time.monotonic() - started
        return self.findings

    def _history(self, name: str, kills: int) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        project = self.project(name)
        command = project.prepare(*self.targets, cores=2)
        log = self.folder / f"{name}.log"
        while True:
            self._unlock_as_told(project, command, log)
            struck, start = False, log.stat().st_size if log.is_file() else 0
            with log.open("ab") as stream:
                snakemake = psutil.Popen(command, stdout=stream, stderr=stream)
            self.findings.commands += 1
            began = time.monotonic()
            while snakemake.poll() is None:
                wait_for_work(snakemake, project.folder, self.random.uniform(0, self.pace_s))
                if snakemake.poll() is None and self.findings.kills.total() < kills:
                    struck |= self._strike(project, snakemake.pid, log)
                assert time.monotonic() - began < _RUN_LIMIT_S, f"hangs: see {log}"
            if snakemake.returncode == 0:
                break
            text = log.read_bytes()[start:].decode("utf-8", "replace")
            refused = _REFUSED in text
            self.findings.refusals += refused
            assert struck or refused, f"{name} failed without a kill:\n{text[-6000:]}"
            if refused:  # as the message says: wait until the orphan ends
                psutil.wait_procs(processes_in(project.folder), timeout=300)
        self._examine(project, name)

    def _strike(self, project: Project, snakemake: int, log: Path) -> bool:
        """Kill one process of the run, or an orphan of an earlier one; every kind is equally likely."""
        victims: dict[str, list[psutil.Process]] = {}
        for process in processes_in(project.folder):
            kind, _ = kind_of(process, snakemake)
            victims.setdefault(kind, []).append(process)
        if not victims:
            return False
        victim = self.random.choice(victims[self.random.choice(sorted(victims))])
        kind, rule = kind_of(victim, snakemake)
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        self.findings.kills[kind] += 1
        if rule:
            self.findings.jobs[rule] += 1
        with log.open("a") as stream:
            stream.write(f"\n=== SIGKILL {kind} {rule} {victim.pid}\n")
        return True

    def _unlock_as_told(self, project: Project, command: list[str], log: Path) -> None:
        """If Snakemake's lock was left, ``segwright status`` must name the way out; that is taken."""
        if not any(project.folder.glob(".snakemake/locks/*.lock")):
            return
        results = project.folder / "results"
        if results.is_dir():
            told = "\n".join(status_lines(results))
            assert "snakemake --unlock" in told and str(project.folder) in told, told
        with log.open("ab") as stream:
            done = psutil.Popen([*command, "--unlock"], stdout=stream, stderr=stream).wait()
        assert done == 0, log.read_text()[-3000:]
        self.findings.unlocks += 1

    def _examine(self, project: Project, name: str) -> None:
        """Everything is as in the undisturbed run, and nothing is left running or half-written."""
        _, alive = psutil.wait_procs(processes_in(project.folder), timeout=300)
        assert not alive, alive
        found = products(project)
        different = sorted(
            path for path in self.wanted.keys() | found.keys() if self.wanted.get(path) != found.get(path)
        )
        assert not different, f"{name}: not as in the undisturbed run: {different}"
        root = project.folder / "results"
        for path in root.rglob("*.json"):
            json.loads(path.read_text())
        for path in root.rglob(f"{TEMPORARY_PREFIX}*"):
            self.findings.leftovers[path.relative_to(root).as_posix()] += 1
        assert not list(root.rglob("state.stale-*")), "a state was set aside"
        for path in root.rglob("state/attempts.json"):
            self._count_epochs(path)
        assert project.run(*self.targets, options=("-n",)).output.count("Nothing to be done") == 1, "not finished"
        shutil.rmtree(project.folder)

    def _count_epochs(self, attempts_json: Path) -> None:
        attempts: list[dict[str, Any]] = json.loads(attempts_json.read_text())
        self.findings.attempts += len(attempts)
        for before, after in itertools.pairwise(attempts):
            self.findings.lost_epochs += max(0, before["epochs_at_end"] - after["epochs_at_start"])
        lines = (attempts_json.parents[1] / "training.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS)), attempts_json


def products(project: Project) -> dict[str, str]:
    """Digest of every product of a run."""
    root = project.folder / "results" / NAME
    paths = {path for pattern in _PRODUCTS for path in root.glob(pattern) if path.is_file()}
    return {
        path.relative_to(root).as_posix(): file_digest(path)
        for path in sorted(paths)
        if not path.name.startswith(".") and "state" not in path.parts
    }


def processes_in(folder: Path) -> list[psutil.Process]:
    """All living processes whose working folder this is: Snakemake, its jobs, theirs, and orphans."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def kind_of(process: psutil.Process, snakemake: int) -> tuple[str, str]:
    """``snakemake``, ``job``, ``shell`` or ``worker``, and the rule of a job."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return "job", ""
    text = " ".join(command)
    rule = _SCRIPT.search(text)
    if process.pid == snakemake or "--snakefile" in command:
        return "snakemake", ""
    if "segwright.training.workers" in text or "spawn_main" in text:
        return "worker", ""
    if command and Path(command[0]).name in ("bash", "sh"):
        return "shell", rule[1] if rule else ""
    return "job", rule[1] if rule else ""


def wait_for_work(snakemake: psutil.Popen, folder: Path, cpu_s: float) -> None:
    """Wait until the processes of a run have worked so long together, or Snakemake has ended."""
    before_s, worked_s = cpu_seconds(folder), 0.0
    while worked_s < cpu_s and snakemake.poll() is None:
        time.sleep(_LOOK_EVERY_S)
        now_s = cpu_seconds(folder)
        worked_s += sum(used_s - before_s.get(pid, 0.0) for pid, used_s in now_s.items())
        before_s |= now_s


def cpu_seconds(folder: Path) -> dict[int, float]:
    """CPU seconds so far of every process in the folder."""
    found = {}
    for process in processes_in(folder):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=10.0, help="CPU seconds; a kill comes within this time")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no new history begins")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    chaos = Chaos(options.folder.resolve(), options.seed, options.pace)
    known = options.folder / "undisturbed.json"
    if known.is_file():
        chaos.wanted = json.loads(known.read_text())
    else:
        sys.stderr.write(f"undisturbed run: {chaos.undisturbed():.0f} s\n")
        known.write_text(json.dumps(chaos.wanted))
    try:
        chaos.kill(options.kills, options.limit)
    finally:
        sys.stderr.write(f"{chaos.findings}\n")
    sys.stderr.write(chaos.findings.text() + "\n")


if __name__ == "__main__":
    main()
