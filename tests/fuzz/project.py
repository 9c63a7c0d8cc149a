"""A small finished project, whose files are changed."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segwright.core.files import read_json
from segwright.core.labels import Labels
from segwright.core.settings import PlanningSettings, PreprocessingSettings
from segwright.inspection.dataset import inspect_dataset
from segwright.phantom import make_phantom
from segwright.planning.planner import make_plans
from segwright.planning.slices import write_plan_folder
from tests.fuzz.mutations import mutated_json
from tests.fuzz.target import Sample, Sampler

FILE = "input.json"


Use = Callable[[Path], object]


@dataclass(frozen=True)
class Parts:
    """Files of a small finished project, as JSON values or bytes."""

    raw: Mapping[str, bytes]
    facts: dict[str, Any]
    fingerprint: dict[str, Any]
    plans: dict[str, Any]
    slices: Mapping[str, dict[str, Any]]
    configurations: dict[str, Any]
    batch: dict[str, Any]
    values: Mapping[str, bytes]
    checks: dict[str, Any]


@cache
def parts() -> Parts:
    """Make them once in each process."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        raw, out = root / "Dataset900_Phantom", root / "checks"
        make_phantom("regions", 3, seed=1, output=raw, test_cases=1)
        inspect_dataset(raw, out, batches=1)
        facts = read_json(raw / "dataset.json")
        fingerprint = read_json(out / "dataset_fingerprint.json")
        settings = PlanningSettings(base_features=4, max_stages=3, max_patch_size=32, gpu_memory_gb=0.05)
        plans, reasons = make_plans(fingerprint, facts, settings, dataset_name=raw.name, reader="SimpleITKIO")
        write_plan_folder(root / "plan", plans, reasons, facts, PreprocessingSettings())
        read = {path.name: read_json(path) for path in (root / "plan").glob("*.json")}
        inspection = out / "inspection"
        return Parts(
            raw={path.relative_to(raw).as_posix(): path.read_bytes() for path in raw.rglob("*") if path.is_file()},
            facts=facts,
            fingerprint=fingerprint,
            plans=read["plans.json"],
            slices={name: value for name, value in read.items() if name.startswith("3d_fullres.")},
            configurations=read["configurations.json"],
            batch=read_json(inspection / "batch_0.json"),
            values={path.name: path.read_bytes() for path in (inspection / "values").iterdir()},
            checks=read_json(out / "checks.json"),
        )


def changed(base: Callable[[], Any], use: Callable[[Path], object], name: str = FILE) -> Callable[[], Sampler]:
    """One JSON file that is changed, and a function that reads it."""

    def prepare() -> Sampler:
        value = base()
        use_unchanged({name: json.dumps(value).encode()}, lambda folder: use(folder / name))

        def draw(rng: random.Random) -> Sample:
            return Sample({name: mutated_json(rng, value)}, lambda folder: use(folder / name), (name,))

        return draw

    return prepare


def use_unchanged(files: Mapping[str, bytes], use: Use) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            path = Path(temporary) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        use(Path(temporary))


@cache
def declared_labels() -> Labels:
    return Labels.from_json(parts().facts)
