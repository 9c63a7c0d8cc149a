"""Which cases of a split are in one validation, as what is made of all out-of-fold predictions needs it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path

from segwright.core.errors import MALFORMED, DamagedFileError, brief
from segwright.core.files import DELETE_FOLDER, read_json
from segwright.splits import ALL


@lru_cache(maxsize=64)
def not_held_out_once(
    splits: Path, written_ns: tuple[int, ...], requested: tuple[str, ...]
) -> tuple[dict[str, int], bool]:
    """Which cases of the requested folds, or of any validation, are in another number of validations than one.

    Every training and prediction of a previous stage asks for it, and 10 000 cases take 0.1 s: found out once in a
    process until the split is made anew.

    Returns:
        sorted cases with their number of validations; whether there is any validation.
    """
    folds = _read_split(splits)
    held_out = Counter(case_id for name, (_, val) in folds.items() if name != ALL for case_id in val)
    used = {case_id for name in requested for part in folds[name] for case_id in part}
    wrong = {case_id: held_out[case_id] for case_id in sorted(used | held_out.keys()) if held_out[case_id] != 1}
    return wrong, bool(held_out)


def written_ns(splits: Path) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in sorted(splits.glob("*.json")))


def _read_split(folder: Path) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """The training and the validation cases of every fold of a split, ``all`` among them."""
    path = folder / "splits.json"
    numbered, everything = read_json(path, DELETE_FOLDER), read_json(folder / "fold_all.json", DELETE_FOLDER)
    try:
        folds = {ALL: everything, **{str(fold): entry for fold, entry in enumerate(numbered)}}
        return {name: (frozenset(entry["train"]), frozenset(entry["val"])) for name, entry in folds.items()}
    except MALFORMED as problem:
        raise DamagedFileError(path, f"not a list of folds ({brief(repr(problem))})", DELETE_FOLDER) from problem
