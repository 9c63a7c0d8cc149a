"""Decide by cross-validation whether keeping only the largest component of structures helps (method 12.2).

nnU-Net v2's decision, without writing and evaluating the whole cross-validation once for every candidate rule: see
``removals.py``. Applying the rules is in ``components.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segwright.core.dataset import Dataset
from segwright.core.errors import DamagedFileError, DatasetError, ModelError
from segwright.core.files import read_json, write_json
from segwright.core.labels import LabelKey, Labels, key_text
from segwright.core.manifest import read_manifests
from segwright.core.recorded import RecordedFile
from segwright.evaluation.metrics import Counts, counts_of_histogram, mean_metrics, mean_without_nan
from segwright.evaluation.parallel import map_cases
from segwright.evaluation.summary import reference_files
from segwright.selection.components import Connectivity, Rule
from segwright.selection.removals import CaseState, Histogram, Removed, after_removal, load_case, try_rules

Means = tuple[dict[LabelKey, dict[str, float]], dict[str, float]]
"""``mean`` and ``foreground_mean`` of a summary."""


@dataclass(frozen=True)
class Trial:
    """One candidate rule and what came of it."""

    rule: Rule
    accepted: bool
    dice_before: float
    dice_after: float
    decided_by: str

    def to_json(self) -> dict[str, Any]:
        return {
            **self.rule.to_json(),
            "accepted": self.accepted,
            "dice_before": self.dice_before,
            "dice_after": self.dice_after,
            "decided_by": self.decided_by,
        }


@dataclass(frozen=True)
class Postprocessing:
    """The rules, and the numbers they were decided on."""

    rules: tuple[Rule, ...]
    reason: str
    trials: tuple[Trial, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    num_cases: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "rules": [rule.to_json() for rule in self.rules],
            "reason": self.reason,
            "before": dict(self.before),
            "after": dict(self.after),
            "tested": [trial.to_json() for trial in self.trials],
            "num_cases": self.num_cases,
        }


def determine_postprocessing(
    manifests: Sequence[Path],
    dataset: Dataset,
    reader: str,
    connectivity: Connectivity,
    output: Path,
    workers: int = 1,
) -> Postprocessing:
    """Find the rules that improve the winner's out-of-fold label maps and write ``output`` (method 12.2).

    Step 1 tries all structures as one mask and accepts if the mean foreground Dice rises and no structure's mean falls.
    Step 2, if there are several structures, tries each one on the state so far and accepts if its own mean rises.
    All comparisons are strict, and false with NaN.

    Args:
        manifests: validation.json of the winner's folds, or labels.json of the winning ensemble.

    Raises:
        DatasetError: a case appears twice or has no label, or a file cannot be read.
        DamagedFileError: a label map is missing or was altered.
    """
    labels = dataset.labels
    states, histograms = _load_cases(read_manifests(manifests), dataset, reader, workers)
    before = _means(histograms, labels)
    trials: list[Trial] = []
    accepted: tuple[Rule, ...] = ()
    for candidates in _rounds(labels, connectivity):
        tasks = [(case_id, (state, accepted, candidates)) for case_id, state in states.items()]
        title = f"postprocessing: {', '.join(rule.describe() for rule in candidates)}"
        removed: dict[str, list[Removed]] = {}
        for case_id, (state, removals) in map_cases(try_rules, tasks, workers, title):
            states[case_id], removed[case_id] = state, removals
        accepted = ()
        for index, rule in enumerate(candidates):
            trial_histograms = {
                case_id: after_removal(histograms[case_id], removals[index]) for case_id, removals in removed.items()
            }
            decide = _decide_alone if trials else _decide_together
            trials.append(decide(rule, histograms, trial_histograms, labels))
            if trials[-1].accepted:
                histograms = trial_histograms
                accepted += (rule,)
    rules = tuple(trial.rule for trial in trials if trial.accepted)
    after = _means(histograms, labels)
    result = Postprocessing(
        rules, _sentence(rules, before, after), tuple(trials), _means_json(before), _means_json(after), len(states)
    )
    write_json(output, result.to_json())
    return result


def write_no_postprocessing(output: Path, reason: str) -> Postprocessing:
    """Write an empty list of rules and why it is empty (switched off, or no out-of-fold predictions)."""
    result = Postprocessing((), reason)
    write_json(output, result.to_json())
    return result


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a postprocessing.json, in the order in which they apply.

    Raises:
        DamagedFileError: it is missing or not such a file.
        ModelError: it holds a rule this version does not know.
    """
    record = read_json(path)
    if not isinstance(record, Mapping) or not isinstance(record.get("rules"), list):
        raise DamagedFileError(path, "not a postprocessing.json (no list `rules`)")
    try:
        return tuple(Rule.from_json(rule) for rule in record["rules"])
    except ModelError as problem:
        raise ModelError(f"{path}: {problem}") from problem


def _rounds(labels: Labels, connectivity: Connectivity) -> list[tuple[Rule, ...]]:
    """Candidates that can be tried on the same state, round by round.

    Different labels never share a voxel, so removing one changes neither the components nor the counts of another and
    all can be tried in one pass. Regions overlap and are tried one after the other.
    """
    keys = labels.foreground_keys
    rounds: list[tuple[Rule, ...]] = [(Rule(tuple(keys), connectivity),)]
    if len(keys) > 1:
        single = [Rule((key,), connectivity) for key in keys]
        rounds += [(rule,) for rule in single] if labels.has_regions else [tuple(single)]
    return rounds


def _decide_together(
    rule: Rule, before: Mapping[str, Histogram], after: Mapping[str, Histogram], labels: Labels
) -> Trial:
    """Step 1: the foreground mean must rise and no structure's mean may fall."""
    mean_before, foreground_before = _means(before, labels)
    mean_after, foreground_after = _means(after, labels)
    worse = [key for key in mean_before if mean_after[key]["Dice"] < mean_before[key]["Dice"]]
    rises = foreground_after["Dice"] > foreground_before["Dice"]
    if not rises:
        decided_by = "the mean foreground Dice does not rise"
    elif worse:
        decided_by = f"the Dice of {', '.join(labels.name_of(key) for key in worse)} falls"
    else:
        decided_by = "the mean foreground Dice rises and no structure gets worse"
    return Trial(rule, rises and not worse, foreground_before["Dice"], foreground_after["Dice"], decided_by)


def _decide_alone(rule: Rule, before: Mapping[str, Histogram], after: Mapping[str, Histogram], labels: Labels) -> Trial:
    """Step 2: the structure's own mean Dice must rise."""
    (key,) = rule.labels_or_regions
    dice_before, dice_after = _mean_dice(before, labels, key), _mean_dice(after, labels, key)
    rises = dice_after > dice_before
    decided_by = f"the Dice of {labels.name_of(key)} {'rises' if rises else 'does not rise'}"
    return Trial(rule, rises, dice_before, dice_after, decided_by)


def _means(histograms: Mapping[str, Histogram], labels: Labels) -> Means:
    counts = [counts_of_histogram(histogram, labels) for histogram in histograms.values()]
    return mean_metrics(counts, labels.foreground_keys)


def _mean_dice(histograms: Mapping[str, Histogram], labels: Labels, key: LabelKey) -> float:
    counts: list[Counts] = [counts_of_histogram(histogram, labels, (key,))[key] for histogram in histograms.values()]
    return mean_without_nan([count.dice for count in counts])


def _load_cases(
    entries: Mapping[str, RecordedFile], dataset: Dataset, reader: str, workers: int
) -> tuple[dict[str, CaseState], dict[str, Histogram]]:
    """States and count tables by case, in the order of a summary (by file name)."""
    references = reference_files(dataset, entries)
    ordered = sorted(entries, key=lambda case_id: entries[case_id].path.name)
    tasks = [(case_id, (case_id, entries[case_id], references[case_id], dataset.labels, reader)) for case_id in ordered]
    states: dict[str, CaseState] = {}
    histograms: dict[str, Histogram] = {}
    for case_id, (state, histogram) in map_cases(load_case, tasks, workers, "postprocessing: read"):
        states[case_id], histograms[case_id] = state, histogram
    if not states:
        raise DatasetError("postprocessing: there is no out-of-fold prediction; train and predict at least one fold")
    return states, histograms


def _means_json(means: Means) -> dict[str, Any]:
    mean, foreground_mean = means
    return {"foreground_mean": foreground_mean, "mean": {key_text(key): metrics for key, metrics in mean.items()}}


def _sentence(rules: Sequence[Rule], before: Means, after: Means) -> str:
    if not rules:
        return "Keeping only the largest component improves no structure in cross-validation."
    kept = "; ".join(rule.describe() for rule in rules)
    (_, foreground_before), (_, foreground_after) = before, after
    return (
        f"Keeping only the largest component of {kept} raises the mean foreground Dice in cross-validation"
        f" from {foreground_before['Dice']:.4f} to {foreground_after['Dice']:.4f}."
    )
