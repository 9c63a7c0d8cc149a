"""Read what a pipeline left behind into typed records. Nothing is computed here but minutes and means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.files import read_json
from segwright.core.plans import Plans
from segwright.evaluation.summary import Summary, read_summary


@dataclass(frozen=True)
class FoldHistory:
    """The epochs of one training, one record an epoch as in ``training.jsonl``, and what it was trained with."""

    configuration: str
    fold: str
    epochs: tuple[Mapping[str, Any], ...]
    training: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.configuration}, fold {self.fold}"


@dataclass(frozen=True)
class JobTime:
    """Run time and peak memory of the jobs of one rule, from the workflow's benchmark files."""

    rule: str
    jobs: int
    runtime_min: float
    peak_memory_mb: float


@dataclass(frozen=True)
class PipelineResults:
    """All results of one pipeline on one dataset.

    Attributes:
        summaries: cross-validation summary by candidate (``a+b`` is an ensemble), in the order of the selection.
        summary_files: where each stands; prediction names in a summary are relative to its folder.
        final_manifest: manifest of the finished test segmentations, if there are test images.
    """

    root: Path
    checks: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    plans: Plans
    reasons_markdown: str
    histories: tuple[FoldHistory, ...]
    summaries: Mapping[str, Summary]
    summary_files: Mapping[str, Path]
    selection: Mapping[str, Any]
    postprocessing: Mapping[str, Any]
    final_manifest: Mapping[str, Any] | None
    job_times: tuple[JobTime, ...]


def read_results(root: Path, data: Path, benchmarks: Path | None = None) -> PipelineResults:
    """Read the results of the pipeline in ``root``, whose dataset's results are in ``data``.

    Raises:
        DamagedFileError: a file is missing or not what it should be.
    """
    summary_files = {path.parent.parent.name: path for path in sorted(root.glob("*/crossval/summary.json"))}
    summary_files.update({path.parent.name: path for path in sorted(root.glob("ensembles/*/summary.json"))})
    selection = read_json(root / "selection" / "selection.json")
    ordered = [name for name in selection["candidates"] if name in summary_files]
    final = root / "final" / "manifest.json"
    reasons = root / "plan" / "reasons.md"
    return PipelineResults(
        root=root,
        checks=read_json(data / "checks.json"),
        fingerprint=read_json(data / "dataset_fingerprint.json"),
        plans=Plans.from_json(read_json(root / "plan" / "plans.json")),
        reasons_markdown=reasons.read_text(encoding="utf-8") if reasons.is_file() else "",
        histories=tuple(_history(path) for path in sorted(root.glob("*/fold_*/training.json"))),
        summaries={name: read_summary(summary_files[name]) for name in ordered},
        summary_files=summary_files,
        selection=selection,
        postprocessing=read_json(root / "postprocessing.json"),
        final_manifest=read_json(final) if final.is_file() else None,
        job_times=_job_times(benchmarks) if benchmarks is not None else (),
    )


def _history(training_json: Path) -> FoldHistory:
    fold = training_json.parent
    lines = fold / "training.jsonl"
    epochs = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.is_file() else []
    return FoldHistory(
        configuration=fold.parent.name,
        fold=fold.name.removeprefix("fold_"),
        epochs=tuple(epochs),
        training=read_json(training_json),
    )


def _job_times(benchmarks: Path) -> tuple[JobTime, ...]:
    """Sum the benchmark files below each rule's folder (columns ``s`` seconds and ``max_rss`` MB)."""
    import pandas as pd

    times = []
    for rule in sorted(path for path in benchmarks.glob("*") if path.is_dir() or path.suffix == ".tsv"):
        files = [rule] if rule.is_file() else sorted(rule.rglob("*.tsv"))
        if not files:
            continue
        rows = pd.concat([pd.read_csv(path, sep="\t", na_values="-") for path in files])
        runtime_min, peak_mb = float(rows["s"].sum()) / 60, float(rows["max_rss"].fillna(0).max())
        times.append(JobTime(rule.name.removesuffix(".tsv"), len(files), runtime_min, peak_mb))
    return tuple(times)
