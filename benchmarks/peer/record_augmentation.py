"""Golden vectors of plans and of augmentation: whole plans files, transforms on given parameters, moments of draws."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
from tests.parity.draws import PIPELINES
from tests.parity.inputs import GOLDEN
from tests.parity.twins import GOLDEN_SHAPE, scene

from benchmarks.peer.common import SEED, quiet, workplace
from benchmarks.peer.compare_planning import peer_plans
from benchmarks.peer.golden import save
from benchmarks.peer.peer_draws import peer_draws, peer_moments, peer_pipeline
from benchmarks.peer.peer_twins import peer_twins
from benchmarks.peer.random_datasets import random_dataset

PLANS, DRAWS, SAMPLES = 70, 20_000, 8_000


def record_plans(versions: dict[str, str]) -> None:
    """The first datasets of :mod:`random_datasets` with the files the peer's planners wrote."""
    cases = []
    with workplace() as work:
        for number in range(PLANS):
            dataset = random_dataset(number)
            cases.append({**dataset.to_json(), "plans": peer_plans(dataset, work)})
    content = json.dumps({"versions": versions, "cases": cases}, separators=(",", ":"))
    (GOLDEN / "plans.json.gz").write_bytes(gzip.compress(content.encode(), mtime=0))


def record_augmentation(versions: dict[str, str]) -> None:
    image, labels = scene(GOLDEN_SHAPE)
    arrays: dict[str, np.ndarray] = {}
    moments: dict[str, Any] = {}
    with workplace(), quiet():
        for name, twin in peer_twins().items():
            arrays |= {f"{name}/{number}": array for number, array in enumerate(twin(image, labels))}
        for name, draw in peer_draws().items():
            moments[name] = peer_moments(draw, DRAWS, SEED + 1).to_json()
        for name, case in PIPELINES.items():
            moments[f"pipeline {name}"] = peer_moments(peer_pipeline(case), SAMPLES, SEED + 1).to_json()
    save("augmentation", arrays)
    content = {"versions": versions, "moments": moments}
    (GOLDEN / "augmentation.json").write_text(json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n")
