"""Which jobs failed, from the workflow's log files: ``<results>/logs/<dataset>/<rule>/<wildcards>.log``.

A job's log ends with an ERROR record when it failed, and goes on below it when it is run again. A job that succeeds
without a word leaves the old record last; its benchmark file, or its product, is then younger than the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json

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


@dataclass(frozen=True)
class Failure:
    """A job whose last attempt ended with an error, and the message."""

    dataset: str
    job: str
    message: str
    log: Path


def failure_lines(results: Path) -> Iterator[str]:
    """The failed jobs of all datasets, each with its message and its log."""
    for failure in failures(results):
        first, *others = failure.message.splitlines() or ["no message"]
        yield f"FAILED {failure.dataset}, {failure.job}: {first}"
        yield from others[:_SHOWN_CAUSE_LINES]
        if len(others) > _SHOWN_CAUSE_LINES:
            yield f"  ... and {len(others) - _SHOWN_CAUSE_LINES} more lines"
        yield f"  log: {failure.log}"


def failures(results: Path) -> list[Failure]:
    """Jobs whose log ends with an error that nothing has mended since, sorted by log."""
    found = []
    for log in sorted((results / "logs").glob("*/**/*.log")):
        dataset, *rest = log.relative_to(results / "logs").with_suffix("").parts
        if rest[0].startswith(_EXECUTOR_FOLDERS):
            continue  # the job's own log says it, and ends well when a later attempt does
        message = _last_error(log)
        if message is None or _mended(results, log, dataset, rest):
            continue
        if rest[0] != _TRAINING or not _is_recorded(results.joinpath(dataset, *rest[1:]), message):
            found.append(Failure(dataset, " ".join(rest), message, log))
    return found


def _is_recorded(fold: Path, message: str) -> bool:
    """Whether a training's own record says it: then ``status`` shows it there, and an interruption is no failure."""
    try:
        attempts = read_json(fold / "state" / "attempts.json")
    except (DamagedFileError, OSError):
        return False
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
    """Whether the job has succeeded after its log was written."""
    benchmark = results.joinpath("benchmarks", dataset, *rest[:-1], f"{rest[-1]}.tsv")
    product = _PRODUCTS.get(rest[0])
    made = None if product is None else results / dataset / product.format(name="/".join(rest[1:]))
    failed_at = log.stat().st_mtime
    return any(path is not None and path.is_file() and path.stat().st_mtime >= failed_at for path in (benchmark, made))
