"""What is done, what is running, what failed: read from a results folder, changing nothing and without Snakemake."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segwright.core.errors import SettingsError
from segwright.core.files import read_json

_STAGES = (
    ("checks", "data/checks.json"),
    ("fingerprint", "data/dataset_fingerprint.json"),
    ("folds", "data/splits/splits.json"),
)


def status_lines(results: Path) -> list[str]:
    """One line a stage, training and product of every dataset and pipeline below ``results``.

    Raises:
        SettingsError: the folder does not exist.
    """
    if not results.is_dir():
        raise SettingsError(f"{results}: there is no such results folder; name it: segwright status RESULTS")
    datasets = sorted(folder for folder in results.iterdir() if (folder / "data").is_dir())
    lines = [line for dataset in datasets for line in _dataset_lines(dataset)]
    lines.extend(_snakemake_lock_lines())
    return lines or [f"{results}: nothing has been made yet"]


def _dataset_lines(dataset: Path) -> Iterator[str]:
    yield dataset.name
    for stage, file in _STAGES:
        yield f"  {stage:14} {'done' if (dataset / file).is_file() else 'missing'}{_checks_text(dataset / file)}"
    stores = sorted(dataset.glob("data/preprocessed/*"))
    for store in stores:
        made = len(list(store.glob("batch_*.json")))
        state = "done" if (store / "index.json").is_file() else f"{made} batches so far"
        yield f"  {'preprocessed':14} {store.name}: {state}"
    for pipeline in sorted(folder.parent for folder in dataset.glob("*/plan")):
        yield from _pipeline_lines(pipeline)


def _pipeline_lines(pipeline: Path) -> Iterator[str]:
    yield f"  pipeline {pipeline.name}"
    for fold in sorted(pipeline.glob("*/fold_*")):
        yield f"    {fold.parent.name:22} {fold.name:8} {_training_text(fold)}"
    selection = pipeline / "selection" / "selection.json"
    if selection.is_file():
        yield f"    selected               {read_json(selection)['best']}"
    for product in ("model.zip", "report.html"):
        if (pipeline / product).is_file():
            yield f"    {product:22} {pipeline / product}"
    final = pipeline / "final" / "manifest.json"
    if final.is_file():
        yield f"    segmentations          {len(read_json(final)['cases'])} in {final.parent}"


def _training_text(fold: Path) -> str:
    """``done``, or the epoch reached with the time left and who is training, or why the last attempt ended."""
    epochs = _read_lines(fold / "training.jsonl")
    reached = f"epoch {epochs[-1]['epoch'] + 1}" if epochs else "no epoch yet"
    if (fold / "training.json").is_file():
        validated = "validated" if (fold / "validation.json").is_file() else "not validated yet"
        return f"trained ({reached}), {validated}"
    owner = _owner(fold / "state")
    if owner is not None:
        left_s = epochs[-1].get("remaining_s") if epochs else None
        left = "" if left_s is None else f", {left_s / 60:.0f} min left"
        return f"running, {reached}{left} ({owner})"
    attempts = fold / "state" / "attempts.json"
    if attempts.is_file():
        ended = _last_end(read_json(attempts))
        return f"stopped at {reached}" + (f": {ended}" if ended else "; run again to continue")
    return f"stopped at {reached}; run again to continue"


def _last_end(attempts: Any) -> str | None:
    entries = attempts.get("attempts", []) if isinstance(attempts, dict) else attempts
    return entries[-1].get("ended") if entries else None


def _owner(state: Path) -> str | None:
    """Who trains now, from the owner record; None if that process is gone."""
    path = state / "owner.json"
    if not path.is_file():
        return None
    owner = read_json(path)
    text = f"{owner.get('host')} process {owner.get('pid')} since {owner.get('since')}"
    if (
        owner.get("host") == socket.gethostname()
        and not Path(f"/proc/{owner.get('pid')}").exists()
        and os.name == "posix"
    ):
        return None
    return text


def _checks_text(path: Path) -> str:
    if path.name != "checks.json" or not path.is_file():
        return ""
    severities = [problem["severity"] for problem in read_json(path)["problems"]]
    return f", {severities.count('error')} errors, {severities.count('warning')} warnings"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The epochs of a training.jsonl; a line that is being written is left out."""
    if not path.is_file():
        return []
    epochs = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            epochs.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return epochs


def _snakemake_lock_lines() -> Iterator[str]:
    if any(Path(".snakemake/locks").glob("*.lock")):
        yield "Snakemake holds a lock here: it is running, or was killed; in that case run `snakemake --unlock`"
