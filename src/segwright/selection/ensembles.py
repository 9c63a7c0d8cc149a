"""Average the probabilities of several configurations, case by case (method 10.7, 11.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segwright.core.dataset import Dataset
from segwright.core.errors import DatasetError, some
from segwright.core.files import write_json
from segwright.core.manifest import read_manifests
from segwright.core.recorded import RecordedFile
from segwright.evaluation.summary import Summary, evaluate_entries, make_summary
from segwright.selection.label_maps import LabelMapTask, make_label_maps


def evaluate_ensemble(
    members: Sequence[Sequence[Path]], dataset: Dataset, reader: str, output: Path, workers: int = 1
) -> Summary:
    """Average the members' out-of-fold probabilities, and evaluate the label maps (method 11.5).

    Label maps whose inputs are unchanged are used again.

    Args:
        members: for each member the probabilities.json of its folds.
        output: folder that receives summary.json, labels.json (a manifest) and labels/.

    Raises:
        DatasetError: the members predicted different cases, or one predicts a case twice.
        DamagedFileError: a probability file is missing or was altered.
    """
    cases = same_cases([read_manifests(files) for files in members])
    tasks = [
        LabelMapTask(
            case_id, output, output / "labels" / f"{case_id}{dataset.file_ending}", reader, probabilities=entries
        )
        for case_id, entries in cases.items()
    ]
    labels = make_label_maps(tasks, output, output / "labels.json", workers, "ensemble: average")
    results = evaluate_entries(labels, dataset, reader, output, workers)
    summary = make_summary(results, dataset.labels, {"dataset": dataset.name, "members": len(members)})
    write_json(output / "summary.json", summary.to_json())
    return summary


def same_cases(members: Sequence[Mapping[str, RecordedFile]]) -> dict[str, tuple[RecordedFile, ...]]:
    """The entries of every case, one a member, sorted by case.

    Raises:
        DatasetError: the members hold different cases, or none.
    """
    if not members or not members[0]:
        raise DatasetError("ensemble: there are no probabilities to average; predict with probabilities first")
    first = members[0]
    for other in members[1:]:
        different = set(first) ^ set(other)
        if different:
            raise DatasetError(
                f"ensemble: the members do not hold the same cases ({some(different)}): {_source(first)} against"
                f" {_source(other)}; predict the same folds and cases with both"
            )
    return {case_id: tuple(member[case_id] for member in members) for case_id in sorted(first)}


def _source(member: Mapping[str, RecordedFile]) -> str:
    return str(next(iter(member.values())).source) if member else "an empty member"
