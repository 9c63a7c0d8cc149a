"""Folds that somebody made: what must be known of their file before the workflow's graph is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.dataset import Dataset
from segwright.core.errors import DatasetError, brief
from segwright.core.files import read_json
from segwright.core.settings import SplitSettings


@dataclass(frozen=True)
class ReadyFolds:
    """A splits file that somebody made: where it lies, and the validation cases of each fold."""

    path: Path
    validation: tuple[frozenset[str], ...]

    def require_disjoint(self, folds: Iterable[str]) -> None:
        """Refuse folds by which a case would be scored twice: summaries count each case once.

        Raises:
            DatasetError: names a case and its folds.
        """
        first: dict[str, str] = {}
        for fold in folds:
            for case_id in sorted(self.validation[int(fold)]):
                if first.setdefault(case_id, fold) != fold:
                    raise DatasetError(
                        f"{self.path}: case {brief(case_id)} is in the validation of fold {first[case_id]} and of fold"
                        f" {fold}, so it would be scored twice; correct the file, or train folds that share no"
                        " validation case: training.folds"
                    )


def folds_in_file(splits: SplitSettings, dataset: Dataset) -> ReadyFolds | None:
    """The folds of a ready-made file: the configured one, or v2's splits_final.json in the dataset's folder.

    None where the folds are made here, or where the file is of no use (making the split then says what is wrong).
    Folds must be known before the graph is built; a small file is read for it.

    Raises:
        DamagedFileError: the configured file is missing or no JSON.
    """
    path = Path(splits.file) if splits.file is not None else dataset.folder / "splits_final.json"
    if splits.file is None and (splits.group or splits.group_pattern or splits.stratify or not path.is_file()):
        return None
    content = read_json(path)
    if not isinstance(content, list) or not content:
        return None
    return ReadyFolds(path, tuple(_validation_cases(entry) for entry in content))


def _validation_cases(entry: Any) -> frozenset[str]:
    """What a fold of a splits file validates; nothing where it is no fold."""
    listed = entry.get("val") if isinstance(entry, dict) else None
    return frozenset(map(str, listed)) if isinstance(listed, list) else frozenset()
