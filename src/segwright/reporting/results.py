"""Read what a pipeline left behind into typed records. Nothing is computed here but sums of run times."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json
from segwright.core.plans import Plans
from segwright.evaluation.summary import Summary, read_summary
from segwright.inspection.checks import Checks, read_checks
from segwright.selection.best import Selection, read_selection

_STAGES = (
    "inspect_batch", "fingerprint", "preprocess_batch", "train_fold", "predict_fold", "summarize_crossval",
    "evaluate_ensemble", "determine_postprocessing", "inspect_test_batch", "predict_test", "finish_test",
    "package_model", "report",
)  # fmt: skip


@dataclass(frozen=True)
class ResultFiles:
    """Where the results of a run lie. What an earlier run with more folds or configurations left is no part of them.

    Attributes:
        root: folder of the pipeline.
        data: folder of what depends on the dataset alone.
        trainings: training.json of every fold.
        summaries: candidate -> its summary.json; empty where nothing was held out.
        final: manifest of the finished test segmentations, if there are test images.
    """

    root: Path
    data: Path
    trainings: Sequence[Path]
    summaries: Mapping[str, Path]
    final: Path | None


@dataclass(frozen=True)
class FoldHistory:
    """The epochs of one training, one record an epoch as in ``training.jsonl``, and what it was trained with."""

    configuration: str
    fold: str
    epochs: tuple[Mapping[str, Any], ...]
    training: Mapping[str, Any]

    @property
    def duration_s(self) -> float:
        """Wall time of all its epochs, whichever attempt ran them."""
        return sum(float(epoch.get("duration_s") or 0) for epoch in self.epochs)

    @property
    def attempts(self) -> int:
        return max((int(epoch.get("attempt", 1)) for epoch in self.epochs), default=1)


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
    checks: Checks
    fingerprint: Mapping[str, Any]
    plans: Plans
    reasons_markdown: str
    histories: tuple[FoldHistory, ...]
    summaries: Mapping[str, Summary]
    summary_files: Mapping[str, Path]
    selection: Selection
    postprocessing: Mapping[str, Any]
    final_manifest: Mapping[str, Any] | None
    job_times: tuple[JobTime, ...]


def read_results(files: ResultFiles, benchmarks: Path | None = None) -> PipelineResults:
    """Read the results of a pipeline.

    Raises:
        DamagedFileError: a file is missing or not what it should be.
    """
    root, data = files.root, files.data
    selection = read_selection(root / "selection" / "selection.json")
    ordered = [name for name in selection.scores if name in files.summaries]
    plans_json = root / "plan" / "plans.json"
    reasons = root / "plan" / "reasons.md"
    return PipelineResults(
        root=root,
        checks=read_checks(data / "checks.json"),
        fingerprint=read_json(data / "dataset_fingerprint.json"),
        plans=Plans.from_json(read_json(plans_json)),
        reasons_markdown=reasons.read_text(encoding="utf-8") if reasons.is_file() else "",
        histories=tuple(_history(path) for path in sorted(files.trainings)),
        summaries={name: read_summary(files.summaries[name]) for name in ordered},
        summary_files=files.summaries,
        selection=selection,
        postprocessing=read_json(root / "postprocessing.json"),
        final_manifest=None if files.final is None else read_json(files.final),
        job_times=() if benchmarks is None else tuple(job_times(benchmarks, root)),
    )


def _history(training_json: Path) -> FoldHistory:
    fold = training_json.parent
    training = read_json(training_json)
    if not isinstance(training, dict):
        raise DamagedFileError(training_json, "not the record of a training")
    return FoldHistory(fold.parent.name, fold.name.removeprefix("fold_"), _epochs(fold / "training.jsonl"), training)


def _epochs(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The epochs; the file is undeclared, so it may be gone, and only then there are no curves."""
    if not path.is_file():
        return ()
    try:
        return tuple(json.loads(line) for line in path.read_text("utf-8").splitlines())
    except json.JSONDecodeError as error:
        raise DamagedFileError(path, f"not one JSON object a line ({error})") from error


def job_times(benchmarks: Path, root: Path) -> Iterator[JobTime]:
    """Sums of Snakemake's benchmark files (columns ``s`` seconds, ``max_rss`` MB) by rule, in the order of the stages.

    Files lie at ``{rule}/{batch, store or pipeline}...tsv``. Those of other pipelines, and of stores this pipeline does
    not use, are left out.
    """
    others = {path.parent.name for path in root.parent.glob("*/plan") if path.parent.name != root.name}
    overview = root / "plan" / "configurations.json"
    planned = read_json(overview)["configurations"].values() if overview.is_file() else ()
    stores = {entry["data_id"] for entry in planned}
    files: dict[str, list[Path]] = {}
    for path in sorted(benchmarks.rglob("*.tsv")):
        rule, *rest = path.relative_to(benchmarks).with_suffix("").parts
        foreign = bool(rest) and (rest[0] in others or (rule == "preprocess_batch" and rest[0] not in stores))
        if not foreign:
            files.setdefault(rule, []).append(path)
    for rule in sorted(files, key=lambda rule: (_STAGES.index(rule) if rule in _STAGES else len(_STAGES), rule)):
        rows = [row for path in files[rule] for row in _benchmark_rows(path)]
        yield JobTime(rule, len(files[rule]), sum(s for s, _ in rows) / 60, max((mb for _, mb in rows), default=0.0))


def _benchmark_rows(path: Path) -> list[tuple[float, float]]:
    """Seconds and peak MB of each run in a benchmark file; a dash (too short to measure) counts nothing."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [(_number(row.get("s")), _number(row.get("max_rss"))) for row in csv.DictReader(stream, delimiter="\t")]


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
