"""Which jobs failed, from the workflow's log files: ``<results>/logs/<dataset>/<rule>/<wildcards>.log``.

A job's log ends with an ERROR record when it failed, and goes on below it when it is run again. A job that succeeds
without a word leaves the old record last; its benchmark file, or its product, is then younger than the log. So is what
others made of its product, where that job was no longer asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json
from segwright.core.settings import Settings

_RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) (?P<message>.*)$")
_TAIL_BYTES = 64_000
_SHOWN_CAUSE_LINES = 4
_TRAINING = "train_fold"
"""Its failures are recorded with its state too, unless it failed before it began."""
_EXECUTOR_FOLDERS = ("rule_", "group_")
"""Begin the names of folders where the SLURM executor keeps what every attempt printed, in ``<results>/logs/slurm``."""
_PRODUCTS = {
    "collect_checks": "data/checks.json",
    "require_valid_dataset": "data/valid.json",
    "split": "data/splits/splits.json",
    "plan": "{name}/plan/plans.json",
    "select_best": "{name}/selection/selection.json",
    "index_preprocessed": "data/preprocessed/{name}/index.json",
    "collect_next_stage": "{name}/next_stage.json",
}
"""What the rules without a benchmark file make; ``{name}`` is the log's path below its rule without ending."""


_LATER = {
    "inspect_batch": "data/dataset_fingerprint.json",
    "preprocess_batch": "data/preprocessed/{store}/index.json",
    "train_fold": "{pipeline}/selection/selection.json",
    "predict_fold": "{pipeline}/selection/selection.json",
    "summarize_crossval": "{pipeline}/selection/selection.json",
    "evaluate_ensemble": "{pipeline}/selection/selection.json",
}
"""What is made when all such jobs that are asked for have succeeded: an older failure is of one that no longer is."""
_OF_FOLDS = ("train_fold", "predict_fold")
_OF_DATA = (
    "inspect_batch", "collect_checks", "require_valid_dataset", "fingerprint", "split", "preprocess_batch",
    "index_preprocessed", "inspect_test_batch",
)  # fmt: skip
"""The rules whose logs are not sorted by pipeline."""


@dataclass(frozen=True)
class Failure:
    """A job whose last attempt ended with an error, and the message."""

    dataset: str
    job: str
    message: str
    log: Path


def failure_lines(results: Path, settings: Settings | None = None) -> Iterator[str]:
    """The failed jobs of all datasets, each with its message and its log."""
    for failure in failures(results, settings):
        first, *others = failure.message.splitlines() or ["no message"]
        yield f"FAILED {failure.dataset}, {failure.job}: {first}"
        yield from others[:_SHOWN_CAUSE_LINES]
        if len(others) > _SHOWN_CAUSE_LINES:
            yield f"  ... and {len(others) - _SHOWN_CAUSE_LINES} more lines"
        yield f"  log: {failure.log}"


def failures(results: Path, settings: Settings | None = None) -> list[Failure]:
    """Jobs whose log ends with an error that nothing has mended since, sorted by log; without what is not asked for.

    Args:
        settings: without these, datasets and pipelines that are no longer configured cannot be told.
    """
    found = []
    for log in sorted((results / "logs").glob("*/**/*.log")):
        dataset, *rest = log.relative_to(results / "logs").with_suffix("").parts
        if rest[0].startswith(_EXECUTOR_FOLDERS):
            continue  # the job's own log says it, and ends well when a later attempt does
        message = _last_error(log)
        if message is None or _mended(results, log, dataset, rest):
            continue
        if not _is_asked_for(results, dataset, rest, settings):
            continue
        if rest[0] != _TRAINING or not _is_recorded(results.joinpath(dataset, *rest[1:]), message):
            found.append(Failure(dataset, " ".join(rest), message, log))
    return found


def _is_asked_for(results: Path, dataset: str, rest: list[str], settings: Settings | None) -> bool:
    rule, *wildcards = rest
    if settings is not None and dataset not in settings.datasets:
        return False
    if rule in _OF_DATA or not wildcards:
        return True
    if settings is not None and wildcards[0] not in settings.pipelines:
        return False
    return rule not in _OF_FOLDS or is_planned(results.joinpath(dataset, *wildcards))


def is_planned(fold: Path) -> bool:
    """Whether plan and splits have the configuration and the fold of ``<results>/<dataset>/<pipeline>/<c>/fold_<k>``.

    Where they are not there, or cannot be read, they may.
    """
    pipeline = fold.parents[1]
    folds = _read(pipeline.parent / "data" / "splits" / "splits.json")
    plan = _read(pipeline / "plan" / "configurations.json")
    configurations = plan.get("configurations") if isinstance(plan, dict) else None
    number = fold.name.removeprefix("fold_")
    known_fold = not isinstance(folds, list) or not number.isdecimal() or int(number) < len(folds)
    return known_fold and (not isinstance(configurations, dict) or fold.parent.name in configurations)


def _read(path: Path) -> Any:
    """The content of a JSON file; None if there is none that can be read."""
    try:
        return read_json(path)
    except (DamagedFileError, OSError):
        return None


def _is_recorded(fold: Path, message: str) -> bool:
    """Whether a training's own record says it: then ``status`` shows it there, and an interruption is no failure."""
    attempts = _read(fold / "state" / "attempts.json")
    causes = (
        [attempt.get("cause") for attempt in attempts if isinstance(attempt, dict)]
        if isinstance(attempts, list)
        else []
    )
    return any(isinstance(cause, str) and cause and message.startswith(cause[:200]) for cause in causes[-1:])


def _last_error(log: Path) -> str | None:
    """The message of the last record if that is an error, without a traceback; else None."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(stream.tell() - _TAIL_BYTES, 0))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    records = [(number, match) for number, line in enumerate(lines) if (match := _RECORD.match(line))]
    if not records or records[-1][1]["level"] not in ("ERROR", "CRITICAL"):
        return None
    number, match = records[-1]
    below = lines[number + 1 :]
    if below and below[0].startswith("Traceback"):
        return f"{match['message']} ({below[-1]})"
    return "\n".join([match["message"], *below]).rstrip()


def _mended(results: Path, log: Path, dataset: str, rest: list[str]) -> bool:
    """Whether the job has succeeded after its log was written, or others went on without it."""
    benchmark = results.joinpath("benchmarks", dataset, *rest[:-1], f"{rest[-1]}.tsv")
    product = _PRODUCTS.get(rest[0])
    made = [] if product is None else [product.format(name="/".join(rest[1:]))]
    if rest[0] in _LATER and len(rest) > 1:
        made.append(_LATER[rest[0]].format(store=rest[1], pipeline=rest[1]))
    failed_at = log.stat().st_mtime
    places = [benchmark, *(results / dataset / path for path in made)]
    return any(path.is_file() and path.stat().st_mtime >= failed_at for path in places)
