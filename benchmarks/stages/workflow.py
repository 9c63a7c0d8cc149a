"""From raw images to segmented test images: 20 Hippocampus cases, two configurations, one fold, a token schedule.

The peer's commands one after the other, as its documentation has them, against one call of Snakemake; wall time on 2
cores. Both validate on the fold's cases with mirroring, choose between the configurations and their ensemble, predict
four test cases with both configurations and average. segwright also checks and hashes every image.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Measurement
from benchmarks.pairs import Command, Goal, Pair, Place, row_of

STAGES = tuple(
    f"whole workflow, 20 Hippocampus cases, 2d + 3d_fullres, fold 0, 4 test cases, {precision}"
    for precision in ("fp32", "bf16")
)
_GOALS = {"fp32": (Goal(ratio=1.5), Goal(ratio=2.0)), "bf16": (Goal(), Goal(ratio=3.0))}
_DATASET = "Dataset004_Hippocampus"
_CONFIGURATIONS = ("2d", "3d_fullres")
_TRAINING, _TESTS, _CORES = 20, 4, 2


def row(stage: str, place: Place) -> dict[str, str] | None:
    """Pairs in turn; the lock is taken for each."""
    raw = raw_dataset(place)
    if raw is None:
        return None
    precision = stage.rsplit(" ", 1)[1]
    must, target = _GOALS[precision]
    pair = Pair(stage, peer(place, raw), ours(place, raw, precision), must, target, wall=True)
    found: dict[str, list[Measurement]] = {"peer": [], "ours": []}
    for number in range(place.pairs):
        with place.alone():
            for who in ("ours", "peer") if number % 2 else ("peer", "ours"):
                side = getattr(pair, who)
                found[who].append(side.run())
    cpu_s = {who: median(run.cpu_s for run in runs) for who, runs in found.items()}
    difference = f"CPU seconds: {cpu_s['peer']:.0f} against {cpu_s['ours']:.0f}"
    return row_of(pair, found["peer"], found["ours"], difference, place)


def raw_dataset(place: Place) -> Path | None:
    source = place.data / "hippocampus" / _DATASET
    if not source.is_dir():
        return None
    target = place.work / "raw" / _DATASET
    names = sorted(path.name for path in (source / "labelsTr").glob("*.nii.gz"))[: _TRAINING + _TESTS]
    for number, name in enumerate(names):
        training = number < _TRAINING
        files = [("imagesTr" if training else "imagesTs", f"imagesTr/{name.replace('.nii', '_0000.nii')}")]
        files += [("labelsTr", f"labelsTr/{name}")] if training else []
        for folder, file in files:
            link = target / folder / Path(file).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / file).resolve())
    facts = json.loads((source / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**facts, "numTraining": _TRAINING}))
    return target


def peer(place: Place, raw: Path) -> Command:
    work = place.work / "peer"
    folders = {f"nnUNet_{name}": str(work / name) for name in ("preprocessed", "results")}
    variables = {
        **folders, "nnUNet_raw": str(raw.parent), "nnUNet_compile": "f", "nnUNet_n_proc_DA": "2",
        "nnUNet_def_n_proc": "2", **threads(),
    }  # fmt: skip

    def command(name: str, *words: str | Path) -> tuple[str | Path, ...]:
        return (place.peer.with_name(f"nnUNetv2_{name}"), *words)

    def predict(configuration: str) -> tuple[str | Path, ...]:
        return command(
            "predict", "-i", raw / "imagesTs", "-o", work / "tests" / configuration, "-d", "4", "-c", configuration,
            "-f", "0", "-device", "cpu", "--save_probabilities", "-npp", "2", "-nps", "2",
        )  # fmt: skip

    def train(configuration: str) -> tuple[str | Path, ...]:
        module = "benchmarks.peer.short_training"
        return (place.peer, "-m", module, "4", configuration, "0", "-device", "cpu", "--npz")

    tests = [work / "tests" / name for name in _CONFIGURATIONS]
    words = (
        command("extract_fingerprint", "-d", "4", "-np", "2"),
        command("plan_experiment", "-d", "4"),
        command("preprocess", "-d", "4", "-c", *_CONFIGURATIONS, "-np", "2", "2"),
        *(train(name) for name in _CONFIGURATIONS),
        command("find_best_configuration", "4", "-c", *_CONFIGURATIONS, "-f", "0", "-np", "2"),
        *(predict(name) for name in _CONFIGURATIONS),
        command("ensemble", "-i", *tests, "-o", work / "tests" / "ensemble", "-np", "2"),
    )
    return Command(words, variables, clean=(work, *(Path(folder) for folder in folders.values())))


def ours(place: Place, raw: Path, precision: str) -> Command:
    work = place.work / "ours"
    training = {
        "configurations": _CONFIGURATIONS, "folds": [0], "epochs": 2, "iterations": 5, "validation_iterations": 2,
        "precision": precision,
    }  # fmt: skip
    config: dict[str, Any] = {
        "datasets": {_DATASET: {"path": str(raw), "batches": _CORES}},
        "results": str(work / "results"),
        "defaults": {
            "training": training,
            "prediction": {"configuration": "+".join(_CONFIGURATIONS), "precision": precision},
        },
        "execution": {"device": "cpu"},
    }
    file = place.work / "config.json"
    file.write_text(json.dumps(config))
    words = (
        place.own, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", work, "--configfile", file,
        "--cores", str(_CORES), "predict_all",
    )  # fmt: skip
    return Command((words,), threads(), clean=(work,))


def threads() -> dict[str, str]:
    """As many as there are cores, as without any setting."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(_CORES))
