"""Choose the model that is used: single configurations and pairs by mean foreground Dice (method 11.4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segwright.core.errors import MALFORMED, DamagedFileError, PlansError, SettingsError, brief, some
from segwright.core.files import DELETE_FOLDER, read_json, write_json
from segwright.core.labels import LabelKey
from segwright.core.plans import STANDARD_CONFIGURATIONS
from segwright.evaluation.metrics import mean_without_nan
from segwright.evaluation.summary import Summary, read_summary

_JOIN = "+"


@dataclass(frozen=True)
class Selection:
    """What was chosen and why.

    Attributes:
        best: id of the chosen candidate: a configuration, or two joined by ``+``.
        members: its configurations.
        scores: candidate id -> mean foreground Dice in cross-validation, in order of preference at a tie.
        folds: the folds the scores come from (``("all",)``: there are no scores).
        reason: one sentence for people.
    """

    best: str
    members: tuple[str, ...]
    reason: str
    folds: tuple[str, ...]
    planned_folds: int
    scores: Mapping[str, float] = field(default_factory=dict)
    num_cases: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "best": self.best,
            "members": list(self.members),
            "reason": self.reason,
            "folds": list(self.folds),
            "planned_folds": self.planned_folds,
            "candidates": list(self.scores),
            "scores": dict(self.scores),
            "num_cases": self.num_cases,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Selection:
        return Selection(
            best=str(record["best"]),
            members=tuple(str(name) for name in record["members"]),
            reason=str(record["reason"]),
            folds=tuple(str(fold) for fold in record["folds"]),
            planned_folds=int(record["planned_folds"]),
            scores={str(name): float(record["scores"][name]) for name in record["candidates"]},
            num_cases=int(record["num_cases"]),
        )


def read_selection(path: Path) -> Selection:
    """Read a selection.json.

    Raises:
        DamagedFileError: it is missing or not a selection.
    """
    record = read_json(path)
    try:
        return Selection.from_json(record)
    except MALFORMED as problem:
        raise DamagedFileError(path, f"not a selection ({brief(repr(problem))})") from problem


def ordered_configurations(planned: Iterable[str]) -> tuple[str, ...]:
    """Configurations in the order that decides ties: v2's four first, then added ones as in the plans."""
    planned = tuple(planned)
    standard = tuple(name for name in STANDARD_CONFIGURATIONS if name in planned)
    return standard + tuple(name for name in planned if name not in standard)


def ensemble_pairs(planned: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Every unordered pair, in list order."""
    names = ordered_configurations(planned)
    return tuple((first, second) for index, first in enumerate(names) for second in names[index + 1 :])


def candidate_ids(planned: Iterable[str], ensembles: bool = True) -> tuple[str, ...]:
    """Ids of all candidates: single configurations, then pairs ``a+b``; at a tie the first one wins."""
    planned = tuple(planned)
    pairs = ensemble_pairs(planned) if ensembles else ()
    return ordered_configurations(planned) + tuple(_JOIN.join(pair) for pair in pairs)


def members_of(candidate: str) -> tuple[str, ...]:
    """The configurations of a candidate id."""
    return tuple(candidate.split(_JOIN))


def select_best(
    candidates: Mapping[str, Path],
    planned: Sequence[str],
    output: Path,
    *,
    folds: Sequence[int | str],
    planned_folds: int,
    configuration: str | None = None,
    lacking: Sequence[str] = (),
) -> Selection:
    """Choose by mean foreground Dice, ties to the simpler candidate, and write ``output`` (selection.json).

    Args:
        candidates: id -> summary.json of its out-of-fold predictions.
        planned: configurations in the order of the plans.
        folds: the folds that were trained.
        configuration: a setting that overrules the scores (``prediction.configuration``).
        lacking: what it names and this dataset's plans lack; if anything, the scores decide, and the reason says so.

    Raises:
        SettingsError: ``configuration`` is not among the candidates.
        PlansError: the candidates were evaluated on different cases, or there is none.
    """
    order = _in_order(candidates, planned)
    summaries = {name: read_summary(candidates[name]) for name in order}
    _require_same_cases(summaries)
    scores = {name: float(summary.foreground_mean["Dice"]) for name, summary in summaries.items()}
    comparable, note = _comparable_scores(summaries, scores)
    winner = max(order, key=lambda name: comparable[name])  # max keeps the first of equal ones, and of those all NaN
    best = winner
    if configuration is not None and not lacking:
        if configuration not in order:
            raise SettingsError(
                f"prediction.configuration is {configuration}, but the candidates are {', '.join(order)};"
                " train it, or choose one of these"
            )
        best = configuration
    folds_used = tuple(str(fold) for fold in folds)
    num_cases = len(summaries[winner].cases)
    reason = _reason(best, winner, comparable, note) + _lacking_note(configuration, lacking)
    reason += _folds_note(folds_used, planned_folds, num_cases)
    selection = Selection(best, members_of(best), reason, folds_used, planned_folds, scores, num_cases)
    write_json(output, selection.to_json(), sealed=DELETE_FOLDER)
    return selection


def select_without_validation(
    trained: Sequence[str],
    output: Path,
    *,
    planned_folds: int,
    configuration: str | None = None,
    lacking: Sequence[str] = (),
) -> Selection:
    """``folds: all``: nothing was held out, so nothing can be compared; write why this configuration predicts.

    Args:
        trained: configurations that were trained on all cases, in the order of the plans.
        configuration: ``prediction.configuration``; None means 3d_fullres, else 2d, else the first.
        lacking: what it names and this dataset's plans lack; if anything, it counts as None, and the reason says so.

    Raises:
        SettingsError: ``configuration`` was not trained.
    """
    if not trained:
        raise SettingsError("folds: all, but no configuration was trained; correct training.configurations")
    best = None if lacking else configuration
    if best is not None and best not in trained:
        raise SettingsError(
            f"prediction.configuration is {best}, but only {', '.join(trained)} were trained; train it, or"
            " choose one of these"
        )
    why = "prediction.configuration says so"
    if best is None:
        best = next((name for name in ("3d_fullres", "2d") if name in trained), ordered_configurations(trained)[0])
        why = "it is the default where nothing can be compared (3d_fullres, else 2d)"
    reason = (
        f"{best} predicts because {why}: with folds: all every case was trained on, so there is no out-of-fold"
        " prediction to select or postprocess by."
    ) + _lacking_note(configuration, lacking)
    selection = Selection(best, (best,), reason, ("all",), planned_folds)
    write_json(output, selection.to_json(), sealed=DELETE_FOLDER)
    return selection


def _in_order(candidates: Iterable[str], planned: Sequence[str]) -> list[str]:
    """Candidates in the order that decides ties, whichever way round the ids name a pair."""
    rank = {frozenset(members_of(name)): position for position, name in enumerate(candidate_ids(planned))}
    given = {name: frozenset(members_of(name)) for name in candidates}
    unknown = sorted(name for name, members in given.items() if members not in rank)
    if unknown or not given:
        raise PlansError(f"selection: the plans lack the candidates {', '.join(unknown) or '(none given)'}; plan again")
    return sorted(given, key=lambda name: rank[given[name]])


def _require_same_cases(summaries: Mapping[str, Summary]) -> None:
    first, *others = summaries
    expected = set(summaries[first].case_ids)
    for name in others:
        difference = expected ^ set(summaries[name].case_ids)
        if difference:
            raise PlansError(
                f"selection: {first} and {name} were evaluated on different cases ({some(difference)}); train and"
                " predict the same folds for both"
            )


def _comparable_scores(summaries: Mapping[str, Summary], scores: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """Scores without NaN, or all NaN.

    A structure that occurs in no case and is never predicted makes v2's score NaN, with which nothing can be compared.
    Then every candidate is scored by the structures that have a value in all of them; there may be none.
    """
    if not any(math.isnan(score) for score in scores.values()):
        return dict(scores), ""
    keys = next(iter(summaries.values())).keys
    shared: list[LabelKey] = [
        key for key in keys if not any(math.isnan(summary.mean[key]["Dice"]) for summary in summaries.values())
    ]
    comparable = {
        name: mean_without_nan([summary.mean[key]["Dice"] for key in shared]) for name, summary in summaries.items()
    }
    left_out = len(keys) - len(shared)
    note = f" {left_out} of {len(keys)} structures never occur in these cases and were left out of the comparison."
    return comparable, note


def _reason(best: str, winner: str, scores: Mapping[str, float], note: str) -> str:
    if math.isnan(scores[best]):
        why = "prediction.configuration says so" if best != winner else "it is the first and simplest one"
        return f"{best} predicts because {why}: no structure has a Dice in all candidates, so nothing can be compared."
    if best != winner:
        return (
            f"{best} (mean foreground Dice {scores[best]:.4f}) predicts because prediction.configuration says so; the"
            f" best in cross-validation is {winner} ({scores[winner]:.4f}).{note}"
        )
    if len(scores) == 1:
        return f"{best} is the only candidate (mean foreground Dice {scores[best]:.4f}).{note}"
    tied = [name for name, score in scores.items() if score == scores[best] and name != best]
    if tied:
        return (
            f"{best} has the highest mean foreground Dice in cross-validation ({scores[best]:.4f}), shared with"
            f" {', '.join(tied)}; the first and simplest one is taken.{note}"
        )
    next_best = max(score for name, score in scores.items() if name != best)
    return (
        f"{best} has the highest mean foreground Dice in cross-validation ({scores[best]:.4f}; next best"
        f" {next_best:.4f}).{note}"
    )


def _lacking_note(configuration: str | None, lacking: Sequence[str]) -> str:
    if not lacking:
        return ""
    return f" prediction.configuration is {configuration}, but {', '.join(lacking)} was not planned for this dataset."


def _folds_note(folds: Sequence[str], planned_folds: int, num_cases: int) -> str:
    if len(folds) >= planned_folds:
        return ""
    return (
        f" Only {len(folds)} of {planned_folds} planned folds were used ({', '.join(folds)}; {num_cases} cases), so the"
        " scores are less certain."
    )
