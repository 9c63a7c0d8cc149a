"""The Dice of a real short training in bf16 next to fp32's: same schedule, seed, data and network.

Both train the example configuration for two cores (config/examples/hippocampus_cpu.yaml: 8 base features, 12 epochs of
40 iterations, AdamW) and predict the fold's validation cases in float32, so that only the training differs.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from benchmarks.measure import ROOT, run_command
from benchmarks.pairs import Place, provenance

STAGE = "cross-validation Dice of a short training in bf16, 2d and 3d_fullres, 1 fold"
STAGES = (STAGE,)
_EXAMPLE = ROOT / "config" / "examples" / "hippocampus_cpu.yaml"
_DATASET = "Dataset004_Hippocampus"
_CONFIGURATIONS = ("2d", "3d_fullres")


def row(stage: str, place: Place) -> dict[str, str] | None:
    raw = place.data / "hippocampus_small" / _DATASET
    if not raw.is_dir():
        return None
    dice = {precision: train(place, raw, precision) for precision in ("fp32", "bf16")}
    text = {
        precision: ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        for precision, found in dice.items()
    }
    apart = [dice["bf16"][name] - dice["fp32"][name] for name in _CONFIGURATIONS]
    return {
        "stage": stage,
        "peer": "-",
        "segwright": f"bf16: {text['bf16']}; fp32: {text['fp32']}",
        "times faster": "-",
        "must": "-",
        "target": "-",
        "holds": "-",
        "peer's memory": "-",
        "segwright's memory": "-",
        "difference": f"bf16 against fp32: {', '.join(f'{value:+.4f}' for value in apart)}",
        **provenance(place),
    }


def train(place: Place, raw: Path, precision: str) -> dict[str, float]:
    """Mean foreground Dice of each configuration on the cases its fold did not train on."""
    config = yaml.safe_load(_EXAMPLE.read_text())
    config["defaults"]["training"] |= {"precision": precision, "folds": [0], "configurations": list(_CONFIGURATIONS)}
    config["defaults"]["prediction"]["precision"] = "fp32"
    work = place.work / precision
    work.mkdir()
    config |= {"datasets": {_DATASET: {"path": str(raw), "batches": 2}}, "results": str(work / "results")}
    file = work / "config.json"
    file.write_text(json.dumps(config))
    summaries = [work / f"results/{_DATASET}/default/{name}/crossval/summary.json" for name in _CONFIGURATIONS]
    words = ("--snakefile", ROOT / "Snakefile", "--directory", work, "--configfile", file, "--cores", "2")
    with place.alone():
        run_command((place.own, "-m", "snakemake", *words, *summaries))
    means = [json.loads(path.read_text())["foreground_mean"]["Dice"] for path in summaries]
    return dict(zip(_CONFIGURATIONS, means, strict=True))
