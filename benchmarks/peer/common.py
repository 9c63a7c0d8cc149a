"""What the comparisons share: raw datasets to work on, plans both programs read, and the rows of the table."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.dataset import Dataset, load_dataset
from segwright.core.plans import Plans
from segwright.core.settings import PlanningSettings
from segwright.inspection.batch import reader_of
from segwright.inspection.dataset import inspect_dataset
from segwright.planning import make_plans

SEED = 20240229
END = "All rows are there."
"""The last line of a comparison; without it the script ended early, whatever its rows say."""


@dataclass
class Table:
    """Rows of a Markdown table, printed as they come; :mod:`benchmarks.peer.run` reads them from there.

    A row is named ``where: what``: rows with equal text after the last ``: `` are summed up in one row of the results.
    """

    title: str
    failed: int = 0

    def __post_init__(self) -> None:
        print(f"\n### {self.title}\n\n| compared | measured | allowed | |\n|---|---|---|---|", flush=True)

    def row(self, what: str, measured: float, allowed: float, unit: str = "") -> None:
        """A row; ``measured`` must not exceed ``allowed``."""
        good = bool(measured <= allowed)
        self.failed += not good
        print(
            f"| {what} | {measured:.3g}{unit} | {allowed:.3g}{unit} | {'ok' if good else '**differs**'} |", flush=True
        )

    def report(self, what: str, measured: str) -> None:
        """A row that is told and has no limit."""
        print(f"| {what} | {measured} | - | told |", flush=True)

    def close(self) -> None:
        print(f"\n{END}", flush=True)
        raise SystemExit(f"{self.failed} rows differ" if self.failed else 0)


@dataclass(frozen=True)
class Planned:
    """A dataset with the plans segwright made for it; ``plans_json`` is what the peer reads."""

    dataset: Dataset
    facts: dict[str, Any]
    fingerprint: dict[str, Any]
    plans: Plans

    @property
    def plans_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.plans.to_json()))


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, which is also where the peer's three environment variables point."""
    with tempfile.TemporaryDirectory(prefix="segwright-peer-") as name:
        for variable in ("raw", "preprocessed", "results"):
            folder = Path(name) / f"nnUNet_{variable}"
            folder.mkdir()
            os.environ[f"nnUNet_{variable}"] = str(folder)
        yield Path(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what the peer prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def some_cases(source: Path, target: Path, count: int) -> Path:
    """A dataset of the first ``count`` training cases, as links; a file beside an image goes with it."""
    dataset = load_dataset(source)
    chosen = dataset.training[:count]
    prefixes = tuple(f"{case.case_id}_" for case in chosen) + tuple(f"{case.case_id}." for case in chosen)
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
        for path in (source / folder).iterdir():
            if path.name.startswith(prefixes):
                (target / folder / path.name).symlink_to(path.resolve())
    facts = {**json.loads((source / "dataset.json").read_text()), "numTraining": len(chosen)}
    (target / "dataset.json").write_text(json.dumps(facts))
    return target


def planned(folder: Path, work: Path, settings: PlanningSettings | None = None) -> Planned:
    """Inspect and plan a dataset with segwright."""
    fingerprint = json.loads(inspect_dataset(folder, work / "inspected", batches=1).read_text())
    dataset = load_dataset(folder)
    facts = json.loads((folder / "dataset.json").read_text())
    plans, _ = make_plans(fingerprint, facts, settings or PlanningSettings(), folder.name, reader_of(dataset))
    return Planned(dataset, facts, fingerprint, plans)


def largest_difference(ours: Any, peers: Any) -> float:
    """Largest absolute difference; infinite where shapes differ, or where a number is none: ``max`` may lose NaN."""
    ours, peers = np.asarray(ours), np.asarray(peers)
    if ours.shape != peers.shape:
        return float("inf")
    largest = float(np.abs(ours.astype(np.float64) - peers.astype(np.float64)).max(initial=0))
    return float("inf") if math.isnan(largest) else largest


def relative_difference(ours: Any, peers: Any) -> float:
    """Largest absolute difference as a share of the largest value."""
    return largest_difference(ours, peers) / max(float(np.abs(np.asarray(peers)).max(initial=0)), 1e-30)


def different(ours: Sequence[Any], peers: Sequence[Any]) -> int:
    """How many entries of two sequences differ."""
    if len(ours) != len(peers):
        return max(len(ours), len(peers))
    return sum(mine != theirs for mine, theirs in zip(ours, peers, strict=True))
