"""Dice on held-back real cases after the same wall time, from raw images to finished weights, plans' defaults.

Each side chooses its own schedule: how many iterations fit is computed from a step time measured within the time. The
peer trains with its own optimizer and learning rate (SGD), segwright with ``schedule: short`` (AdamW) and
``precision: bf16``, settings any user has. Both predict afterwards with mirroring and the same tiles, in float32, and
the peer's program computes both Dice values. Where other work shares the machine both are run at once, each on a core
of its own, so that they meet the same disturbance.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT
from benchmarks.pairs import Place, provenance

_WAYS = {"in turn": "2 cores, one program after the other", "at once": "1 core each, both at once"}
STAGES = tuple(
    f"equal time, {minutes} minutes, {way}: Dice of 3d_fullres, from raw images, {how}"
    for way, how in _WAYS.items()
    for minutes in (10, 30)
)
TRAINING_CASES, HELD_BACK, EPOCHS = 60, 30, 20
TARGET_GAIN = 0.05
_DATASET = "Dataset004_Hippocampus"
_TRIAL_EPOCHS, _TRIAL_ITERATIONS = 2, 8
_SPARE = 0.04
_START_S = 8.0  # the workflow and torch start once more after the trial


@dataclass(frozen=True)
class Run:
    """One side's attempt.

    Attributes:
        budget_s: wall seconds from the first command to the weights.
        cores: numbers of the cores it may use.
    """

    place: Place
    raw: Path
    work: Path
    budget_s: float
    cores: tuple[int, ...]
    started: float = field(default_factory=time.time)
    used_cpu_s: list[float] = field(default_factory=list)

    def do(self, words: Sequence[str | Path], variables: Mapping[str, str]) -> None:
        """Run a command on this run's cores; what it writes goes to a file.

        Raises:
            RuntimeError: it failed.
        """
        with (self.work / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [str(word) for word in words], env={**os.environ, **variables}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.used_cpu_s.append(usage.ru_utime + usage.ru_stime)
        if process.returncode:
            raise RuntimeError(f"{words} ended with {process.returncode}; see {log.name}")

    def so_far(self) -> tuple[float, float]:
        """Wall and CPU seconds since it began."""
        return time.time() - self.started, sum(self.used_cpu_s)


@dataclass(frozen=True)
class Outcome:
    """What a side reached: mean Dice, wall and CPU seconds until its weights, and its schedule in words."""

    dice: float
    wall_s: float
    cpu_s: float
    schedule: str

    def text(self) -> str:
        spent = f"{self.wall_s / 60:.1f} min ({self.cpu_s:.0f} s CPU)"
        return f"Dice {self.dice:.4f}, weights after {spent}, {self.schedule}"


def row(stage: str, place: Place) -> dict[str, str] | None:
    """The row of one budget, one side after the other on all cores or both at once on one core each."""
    raw = raw_dataset(place)
    if raw is None:
        return None
    found: dict[str, Outcome] = {}
    sides = {"peer": peer, "ours": ours}
    minutes = int(stage.split()[2])

    def attempt(name: str, cores: tuple[int, ...]) -> None:
        work = place.work / name
        work.mkdir()
        found[name] = sides[name](Run(place, raw, work, 60.0 * minutes, cores))

    if "in turn" in stage:
        for name in sides:
            with place.alone():
                attempt(name, (0, 1))
    else:
        with place.alone():
            threads = [threading.Thread(target=attempt, args=(name, (core,))) for core, name in enumerate(sides)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return row_of(stage, found["peer"], found["ours"], place)


def row_of(stage: str, peers: Outcome, mine: Outcome, place: Place) -> dict[str, str]:
    gain = mine.dice - peers.dice
    reached = [word for word, good in (("must", gain > 0), ("target", gain >= TARGET_GAIN)) if good]
    return {
        "stage": stage,
        "peer": peers.text(),
        "segwright": mine.text(),
        "times faster": "-",
        "must": "higher",
        "target": f"+{TARGET_GAIN}",
        "holds": ", ".join(reached) or "no",
        "peer's memory": "-",
        "segwright's memory": "-",
        "difference": f"{gain:+.4f} Dice on {HELD_BACK} held-back cases, {TRAINING_CASES} to train on",
        **provenance(place),
    }


def raw_dataset(place: Place) -> Path | None:
    """Training cases, test images, and the labels of the latter in ``labelsTs``, which neither program reads."""
    source = place.data / "hippocampus" / _DATASET
    if not source.is_dir():
        return None
    target = place.work / "raw" / _DATASET
    names = sorted(path.name for path in (source / "labelsTr").glob("*.nii.gz"))[: TRAINING_CASES + HELD_BACK]
    for number, name in enumerate(names):
        part = "Tr" if number < TRAINING_CASES else "Ts"
        for folder, file in (("images", name.replace(".nii", "_0000.nii")), ("labels", name)):
            link = target / f"{folder}{part}" / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / f"{folder}Tr" / file).resolve())
    facts = json.loads((source / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**facts, "numTraining": TRAINING_CASES}))
    return target


def peer(run: Run) -> Outcome:
    """nnU-Net v2's commands in sequence."""
    variables = {f"nnUNet_{name}": str(run.work / name) for name in ("preprocessed", "results")} | {
        "nnUNet_raw": str(run.raw.parent),
        "nnUNet_compile": "f",
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "2",
        "BENCHMARK_ENDS_AT": str(run.started + run.budget_s),
        "BENCHMARK_EPOCHS": str(EPOCHS),
        "PYTHONPATH": str(ROOT),
    }

    def command(name: str, *words: str | Path) -> None:
        run.do((run.place.peer.with_name(f"nnUNetv2_{name}"), *words), variables)

    command("extract_fingerprint", "-d", "4", "-np", "2")
    command("plan_experiment", "-d", "4")
    command("preprocess", "-d", "4", "-c", "3d_fullres", "-np", "2")
    training = ("-m", "benchmarks.peer.timed_training", "4", "3d_fullres", "all", "-device", "cpu")
    run.do((run.place.peer, *training), variables)
    wall_s, cpu_s = run.so_far()
    predictions = run.work / "predictions"
    command(
        "predict", "-i", run.raw / "imagesTs", "-o", predictions, "-d", "4", "-c", "3d_fullres", "-f", "all",
        "-device", "cpu", "-npp", "1", "-nps", "1",
    )  # fmt: skip
    log = next((run.work / "results").rglob("training_log_*.txt")).read_text()
    schedule = log.split("timed: ")[1].splitlines()[0].strip()
    return Outcome(mean_dice(run.place, run.raw, predictions), wall_s, cpu_s, f"{schedule}, SGD, fp32")


def ours(run: Run) -> Outcome:
    """segwright's workflow: until the data are preprocessed, a short trial for the step time, the training."""
    trial = {"trial": {"training": {"epochs": _TRIAL_EPOCHS, "iterations": _TRIAL_ITERATIONS}}}
    results = run.work / "results" / _DATASET
    model = "3d_fullres/fold_all/model.safetensors"
    _workflow(run, {"pipelines": trial}, results / "trial" / model)
    last_epoch = (results / "trial" / model).with_name("training.jsonl").read_text().splitlines()[-1]
    step_s = json.loads(last_epoch)["duration_s"] / (_TRIAL_ITERATIONS + 0.5)  # a validation step is no backward pass
    left_s = (run.started + run.budget_s - time.time()) * (1 - _SPARE) - _START_S
    schedule = {"epochs": EPOCHS, "iterations": max(1, int(left_s / EPOCHS / step_s - 0.5))}
    _workflow(run, {"defaults": {"training": schedule}}, results / "default" / model)
    wall_s, cpu_s = run.so_far()
    _workflow(run, {"defaults": {"training": schedule}}, "predict_all")
    text = f"{EPOCHS} epochs of {schedule['iterations']} iterations, AdamW, bf16"
    return Outcome(mean_dice(run.place, run.raw, results / "default" / "final"), wall_s, cpu_s, text)


def mean_dice(place: Place, raw: Path, predictions: Path) -> float:
    """Mean over held-back cases and labels, computed by the peer's program."""
    output = predictions.parent / f"{predictions.name}_metrics.json"
    subprocess.run(
        [
            str(place.peer.with_name("nnUNetv2_evaluate_simple")), str(raw / "labelsTs"), str(predictions), "-l", "1",
            "2", "-o", str(output), "-np", "1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return float(json.loads(output.read_text())["foreground_mean"]["Dice"])


def _workflow(run: Run, changes: Mapping[str, Any], target: Path | str) -> None:
    training = {
        "schedule": "short", "configurations": ["3d_fullres"], "folds": "all", "precision": "bf16",
        "torch_threads": len(run.cores), "validation_iterations": 1,
    }  # fmt: skip
    config: dict[str, Any] = {
        "datasets": {_DATASET: {"path": str(run.raw), "batches": len(run.cores)}},
        "results": str(run.work / "results"),
        "execution": {"device": "cpu"},
        **changes,
    }
    config["defaults"] = {"training": {**training, **config.get("defaults", {}).get("training", {})}}
    file = run.work / "config.json"
    file.write_text(json.dumps(config))
    words = ("snakemake", "--snakefile", ROOT / "Snakefile", "--directory", run.work, "--configfile", file)
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    run.do((run.place.own, "-m", *words, "--cores", str(len(run.cores)), target), {"PYTHONPATH": paths})
