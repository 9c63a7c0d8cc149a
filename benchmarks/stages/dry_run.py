"""``snakemake -n`` where everything is done: 100, 1000 and 5000 tiny 2-D cases, a fifth as many test images.

The finished state comes from a real run with a network of a few kilobytes, one fold and one training step; it takes
minutes, so it is made once per size. The dry run must say that nothing is to be done. There is no peer to compare with.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, Measurement, environment, run_command
from benchmarks.pairs import Goal, Place, memory_text, provenance

_GOALS = {
    100: (Goal(seconds=2), Goal(seconds=1.5)),
    1000: (Goal(seconds=3), Goal(seconds=2)),
    5000: (Goal(seconds=5), Goal(seconds=3)),
}
STAGES = tuple(f"snakemake -n where all is done, {cases} cases" for cases in _GOALS)
_EDGE, _SEED = 16, 20240229
_DONE = "Nothing to be done"


def row(stage: str, place: Place) -> dict[str, str]:
    cases = int(stage.split()[-2])
    must, target = _GOALS[cases]
    folder = tiny_dataset(place.work / "Dataset901_Tiny", cases)
    words = workflow(place, folder)
    with place.alone():
        run_command((*words, "--cores", str(os.cpu_count())))
    said = subprocess.run([*map(str, words), "-n"], env=environment(), capture_output=True, text=True, check=True)
    if _DONE not in said.stdout + said.stderr:
        raise RuntimeError(f"{stage}: the dry run finds work to do:\n{said.stdout[-2000:]}")
    runs: list[Measurement] = []
    for _ in range(place.pairs):
        with place.alone():
            runs.append(run_command((*words, "-n")))
    cpu_s, wall_s = (median(getattr(run, name) for run in runs) for name in ("cpu_s", "wall_s"))
    memory_mib = median(run.memory_mib for run in runs)
    holds = [name for name, goal in (("must", must), ("target", target)) if not goal.missed(1, cpu_s, 0, 0)]
    return {
        "stage": stage,
        "peer": "-",
        "segwright": f"{cpu_s:.2f} s CPU, {wall_s:.2f} s wall",
        "times faster": "-",
        "must": must.text(),
        "target": target.text(),
        "holds": holds[-1] if holds else "no",
        "peer's memory": "-",
        "segwright's memory": memory_text(memory_mib),
        "difference": f"{len(runs)} runs; CPU seconds count; `snakemake --version` alone takes {start_s(place):.2f} s",
        **provenance(place),
    }


def start_s(place: Place) -> float:
    """CPU seconds Snakemake takes to start and do nothing."""
    return median(run_command((place.own, "-m", "snakemake", "--version")).cpu_s for _ in range(3))


def tiny_dataset(folder: Path, cases: int) -> Path:
    """PNG images of noise with a bright square, which is the label."""
    from skimage.io import imsave

    rng = np.random.default_rng(_SEED)
    label = np.zeros((_EDGE, _EDGE), np.uint8)
    label[4:10, 4:10] = 1
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number in range(cases + cases // 5):
        image = (rng.integers(0, 128, label.shape) + 100 * label).astype(np.uint8)
        part = "Tr" if number < cases else "Ts"
        imsave(folder / f"images{part}" / f"case_{number:05d}_0000.png", image, check_contrast=False)
        if number < cases:
            imsave(folder / "labelsTr" / f"case_{number:05d}.png", label, check_contrast=False)
    facts = {
        "channel_names": {"0": "grey"}, "labels": {"background": 0, "square": 1}, "numTraining": cases,
        "file_ending": ".png",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def workflow(place: Place, dataset: Path) -> tuple[str | Path, ...]:
    """The command but for what is to be done."""
    training = {
        "schedule": "smoke", "epochs": 1, "iterations": 1, "validation_iterations": 1, "folds": [0],
        "configurations": ["2d"], "torch_threads": 1,
    }  # fmt: skip
    config: dict[str, Any] = {
        "datasets": {dataset.name: {"path": str(dataset)}},
        "results": str(place.work / "results"),
        "execution": {"device": "cpu"},
        "defaults": {
            "planning": {"base_features": 4, "max_features_2d": 4},
            "training": training,
            "prediction": {"mirroring": False, "tile_step": 1.0},
        },
    }
    file = place.work / "config.json"
    file.write_text(json.dumps(config))
    places = ("--snakefile", ROOT / "Snakefile", "--directory", place.work, "--configfile", file)
    return (place.own, "-m", "snakemake", *places)
