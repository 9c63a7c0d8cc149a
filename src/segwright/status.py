"""What is done, what is running, what failed: read from a results folder, changing nothing and without Snakemake.

A run may be in the middle of anything, so nothing here trusts a file: what is missing, half written or of another form
is shown as not there.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from segwright.core.errors import DamagedFileError, SettingsError
from segwright.core.files import read_json
from segwright.core.settings import Settings
from segwright.failures import failure_lines, is_planned

_STARTED_LATER_S = 60  # a process this much younger than an owner record only has its number by chance
_QUIET_S = 3600.0


def status_lines(results: Path, settings: Settings | None = None) -> list[str]:
    """Lines for people: every dataset with its stages, trainings and products; then failures and Snakemake's lock.

    Args:
        settings: only their datasets and pipelines; None: all that were made there.

    Raises:
        SettingsError: the folder does not exist.
    """
    if not results.is_dir():
        raise SettingsError(f"{results}: there is no such results folder; name it: segwright status RESULTS")
    datasets = sorted(folder for folder in results.iterdir() if (folder / "data").is_dir())
    if settings is not None:
        datasets = [folder for folder in datasets if folder.name in settings.datasets]
    pipelines = None if settings is None else settings.pipelines
    lines = [line for dataset in datasets for line in _dataset_lines(dataset, pipelines)]
    lines = lines or [f"{results}: nothing has been made yet"]
    return [*lines, *failure_lines(results, settings), *_snakemake_lines(results)]


# --- the data ---------------------------------------------------------------------------------------------------------


def _dataset_lines(dataset: Path, pipelines: Collection[str] | None) -> Iterator[str]:
    data = dataset / "data"
    yield dataset.name
    yield _line("checks", _checks_text(data))
    yield _line("fingerprint", "done" if (data / "dataset_fingerprint.json").is_file() else "not yet")
    folds = len(_list(_read(data / "splits" / "splits.json")))
    made = (data / "splits" / "fold_all.json").is_file()
    yield _line("folds", (f"done, {folds}" if folds else "done, all cases together") if made else "not yet")
    for store in sorted(path for path in data.glob("preprocessed/*") if path.is_dir()):
        yield _line("preprocessed", f"{store.name}: {_store_text(store)}")
    for pipeline in sorted(path for path in dataset.iterdir() if path.is_dir() and path.name != "data"):
        if pipelines is None or pipeline.name in pipelines:
            yield from _pipeline_lines(pipeline)


def _checks_text(data: Path) -> str:
    if not (data / "checks.json").is_file():
        batches = len(list(data.glob("inspection/batch_*.json")))
        return f"not yet ({batches} batches inspected)" if batches else "not yet"
    checks = _dict(_read(data / "checks.json"))
    severities = [_dict(problem).get("severity") for problem in _list(checks.get("problems"))]
    errors, warnings = severities.count("error"), severities.count("warning")
    counts = f"{len(_list(checks.get('cases')))} cases, {errors} errors, {warnings} warnings"
    return f"FAILED, {counts}: see {data / 'checks.tsv'}" if errors else f"done, {counts}"


def _store_text(store: Path) -> str:
    batches = [_dict(_read(path)) for path in sorted(store.glob("batch_*.json"))]
    cases = sum(len(_dict(batch.get("cases"))) for batch in batches)
    return f"done, {cases} cases" if (store / "index.json").is_file() else f"{cases} cases so far"


# --- a pipeline -------------------------------------------------------------------------------------------------------


def _pipeline_lines(pipeline: Path) -> Iterator[str]:
    yield f"  pipeline {pipeline.name}"
    planned = list(_dict(_dict(_read(pipeline / "plan" / "configurations.json")).get("configurations")))
    yield _line("plan", f"done: {', '.join(planned)}" if planned else "not yet", indent=4)
    folds = sorted(pipeline.glob("*/fold_*"))
    for fold in sorted(path for path in folds if path.is_dir()):
        name = f"{fold.parent.name} fold {fold.name.removeprefix('fold_')}"
        yield _line(name, _training_text(fold) + ("" if is_planned(fold) else " (no longer planned)"), indent=4)
    selection = _dict(_read(pipeline / "selection" / "selection.json"))
    if selection:
        dice = _dict(selection.get("scores")).get(str(selection.get("best")))
        shown = f" (mean Dice {dice:.4f})" if isinstance(dice, (int, float)) else ""
        yield _line("selected", f"{selection.get('best')}{shown}", indent=4)
    else:
        for name, dice in _scores(pipeline):
            yield _line(f"{name} cross-validated", f"mean Dice {dice:.4f}", indent=4)
    rules = pipeline / "postprocessing.json"
    if rules.is_file():
        yield _line("postprocessing", f"decided, {len(_list(_dict(_read(rules)).get('rules')))} rules", indent=4)
    final = pipeline / "final" / "manifest.json"
    if final.is_file():
        cases = len(_dict(_dict(_read(final)).get("cases")))
        yield _line("test images", f"{cases} segmented: {final.parent}", indent=4)
    for name, product in (("model", "model/model.json"), ("archive", "model.zip"), ("report", "report.html")):
        if (pipeline / product).is_file():
            path = pipeline / "model" if name == "model" else pipeline / product
            yield _line(name, str(path), indent=4)


def _scores(pipeline: Path) -> Iterator[tuple[str, float]]:
    """Mean foreground Dice of the configurations that are cross-validated already."""
    for path in sorted(pipeline.glob("*/crossval/summary.json")):
        dice = _dict(_dict(_read(path)).get("foreground_mean")).get("Dice")
        if isinstance(dice, (int, float)):
            yield path.parent.parent.name, dice


# --- one training -----------------------------------------------------------------------------------------------------


def _training_text(fold: Path) -> str:
    """``trained``, or who trains with the epoch and the time left, or why and where the last attempt ended."""
    state = fold / "state"
    epochs = _epochs(fold / "training.jsonl")
    reached = len(epochs)
    training = _dict(_read(fold / "training.json"))
    if training:
        return f"trained, {training.get('epochs', reached)} epochs; {_validation_text(fold)}"
    total = _dict(_dict(_read(state / "stamp.json")).get("settings")).get("epochs")
    progress = f"{reached} of {total} epochs" if total else f"{reached} epochs"
    owner = _dict(_read(state / "owner.json"))
    if owner and not _has_died(owner):
        return f"running, {progress}{_remaining_text(epochs)} ({_owner_text(owner, fold)})"
    last = _dict(next(iter(reversed(_list(_read(state / "attempts.json")))), None))
    ended, cause = last.get("ended"), str(last.get("cause") or "")
    if owner or (last and ended in (None, "killed")):
        return f"KILLED after {progress}; run again to continue"
    if ended in ("error", "out_of_memory"):
        return f"FAILED ({str(ended).replace('_', ' ')}) after {progress}: {_first_line(cause)}"
    if ended in ("interrupted", "keyboard"):
        return f"interrupted after {progress}; run again to continue"
    return f"not finished, {progress}; run again to continue"


def _validation_text(fold: Path) -> str:
    if (fold / "validation.json").is_file():
        return f"validated on {len(_dict(_dict(_read(fold / 'validation.json')).get('cases')))} cases"
    predicted = sum(path.is_file() and not path.name.startswith(".") for path in (fold / "validation").glob("*"))
    return f"validation: {predicted} cases so far" if predicted else "not validated yet"


def _remaining_text(epochs: list[dict[str, Any]]) -> str:
    left_s = epochs[-1].get("remaining_s") if epochs else None
    return f", {duration_text(left_s)} left" if isinstance(left_s, (int, float)) else ""


def duration_text(seconds: float) -> str:
    """A length of time in the one or two units people think in."""
    minutes = round(max(seconds, 0) / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _owner_text(owner: dict[str, Any], fold: Path) -> str:
    job = f", job {owner['job']}" if owner.get("job") else ""
    text = f"host {owner.get('host')}, process {owner.get('pid')}{job}, since {owner.get('since')}"
    history = fold / "training.jsonl"
    quiet_s = time.time() - history.stat().st_mtime if history.is_file() else 0.0
    if owner.get("host") != platform.node() and quiet_s > _QUIET_S:
        text += f"; no epoch for {duration_text(quiet_s)}, so look whether it still runs"
    return text


def _has_died(owner: dict[str, Any]) -> bool:
    """Whether the owner ran on this machine and is gone; of another machine nothing is known."""
    if owner.get("host") != platform.node():
        return False
    try:
        started = psutil.Process(int(owner["pid"])).create_time()
        since = datetime.fromisoformat(str(owner["since"])).timestamp()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return not psutil.pid_exists(int(owner["pid"]))
    except (KeyError, ValueError, TypeError, OverflowError):
        return True
    return started > since + _STARTED_LATER_S


# --- Snakemake --------------------------------------------------------------------------------------------------------


def _snakemake_lines(results: Path) -> Iterator[str]:
    """Whether Snakemake runs where these results are made, or left a lock there."""
    for folder in dict.fromkeys((Path.cwd(), *results.resolve().parents)):
        if not any(folder.glob(".snakemake/locks/*.lock")):
            continue
        running = _snakemake_process(folder)
        if running is not None:
            yield f"Snakemake is running in {folder} (process {running})."
            return
        yield f"Snakemake holds a lock in {folder}, but runs there on no process of this machine."
        yield "If it does not run on another machine either, it was killed: give the same snakemake command with"
        yield "`--unlock` once (`snakemake --unlock`), then the same command again; it goes on where it was."
        return


def _snakemake_process(folder: Path) -> int | None:
    for process in psutil.process_iter():
        try:
            command = process.cmdline()[:3]
            if any(Path(part).name == "snakemake" for part in command) and Path(process.cwd()) == folder:
                return int(process.pid)
        except psutil.Error:
            continue  # gone meanwhile, or somebody else's
    return None


# --- reading what may be half there -----------------------------------------------------------------------------------


def _line(what: str, text: str, indent: int = 2) -> str:
    return f"{' ' * indent}{what:{30 - indent}} {text}"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no cause was recorded")


def _read(path: Path) -> Any:
    """The content of a JSON file; None if there is none that can be read."""
    try:
        return read_json(path)
    except (DamagedFileError, OSError):
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _epochs(path: Path) -> list[dict[str, Any]]:
    """The epochs of a training.jsonl; a line that is being written is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    epochs = []
    for line in lines:
        try:
            epoch = json.loads(line)
        except ValueError:
            break
        if isinstance(epoch, dict):
            epochs.append(epoch)
    return epochs
