"""Golden vectors of fingerprints: the peer's of recorded phantoms, and its plans of real datasets' fingerprints."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tests.parity.datasets import image_dataset
from tests.parity.inputs import GOLDEN

from benchmarks.peer.common import quiet, some_cases, workplace
from benchmarks.peer.compare_fingerprint import DATASETS, NAMES, SEEDS, peer_cases, peer_statistics
from benchmarks.peer.compare_planning import peer_plans
from benchmarks.peer.golden import installed_versions
from benchmarks.peer.random_datasets import RandomDataset
from segwright.core.dataset import load_dataset
from segwright.core.settings import PlanningSettings

REAL_PLANNERS = ("default", "resenc_l")


def record_fingerprints(cases: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Shapes, spacings, and mean and standard deviation of every statistic over the peer's seeds.

    Args:
        cases: the recorded phantoms by preset.
    """
    recorded = {}
    with np.load(GOLDEN / "preprocessing.npz") as arrays:
        for preset, case in cases.items():
            dataset = image_dataset(work / "fingerprints" / preset, case, *_raw(arrays, preset))
            with quiet():
                cropped, found = peer_cases(SimpleNamespace(dataset=dataset, facts=dict(dataset.description)))  # type: ignore[arg-type]
                seeds = [peer_statistics(cropped, seed) for seed in SEEDS]
            channels = [
                {name: _moments([seed[channel][name] for seed in seeds]) for name in NAMES}
                for channel in range(len(seeds[0]))
            ]
            recorded[preset] = {
                "shapes": [[int(edge) for edge in shape] for shape in found["shapes"]],
                "spacings": [[float(edge) for edge in spacing] for spacing in found["spacings"]],
                "relative": found["relative"],
                "channels": channels,
            }
    return recorded


def _raw(arrays: Any, preset: str) -> tuple[np.ndarray, np.ndarray]:
    return arrays[f"{preset}/raw"], arrays[f"{preset}/seg"]


def _moments(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))


def record_real_plans(data: Path) -> None:
    """Plans of real datasets: of the images only shapes, spacings and intensity statistics, as the peer finds them."""
    recorded = []
    for source, count in DATASETS.items():
        with workplace() as work:
            folder = some_cases(data / source, work / Path(source).name, count)
            dataset, facts = load_dataset(folder), json.loads((folder / "dataset.json").read_text())
            with quiet():
                cropped, found = peer_cases(SimpleNamespace(dataset=dataset, facts=facts))  # type: ignore[arg-type]
                statistics = peer_statistics(cropped, SEEDS[0])
            kept = ("channel_names", "labels", "regions_class_order", "numTraining", "file_ending")
            real = RandomDataset(
                dataset.name, "real",
                {
                    "spacings": [[float(edge) for edge in spacing] for spacing in found["spacings"]],
                    "shapes_after_crop": [[int(edge) for edge in shape] for shape in found["shapes"]],
                    "median_relative_size_after_cropping": found["relative"],
                    "foreground_intensity_properties_per_channel": {
                        str(channel): dict(sorted(numbers.items())) for channel, numbers in enumerate(statistics)
                    },
                },
                {key: facts[key] for key in kept if key in facts},
                PlanningSettings(),
            )  # fmt: skip
            for planner in REAL_PLANNERS:
                named = replace(real, name=f"{real.name}_{planner}", settings=PlanningSettings(planner=planner))
                recorded.append({**named.to_json(), "plans": peer_plans(named, work)})
    content = json.dumps({"versions": installed_versions(), "cases": recorded}, separators=(",", ":"))
    (GOLDEN / "real_plans.json.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
