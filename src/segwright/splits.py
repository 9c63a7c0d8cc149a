"""Cross-validation folds: nnU-Net v2's seeded split, or grouped, stratified, or read from a file (method 9.6).

No group (patient, site) and no copy of an image is ever in training and validation of one fold.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segwright.case_table import groups_of, read_case_table, strata_of
from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import read_json, write_json, write_text
from segwright.core.settings import SplitSettings
from segwright.inspection.checks import read_checks
from segwright.inspection.records import read_batches

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

ALL = "all"
"""Name of the fold that trains on every case and validates on the same (method 9.6)."""
_IF_ALTERED = "delete the folder it lies in and the dataset's plan folders and run again"  # plans come after the split


__all__ = [
    "ALL",
    "Fold",
    "fold_of_splits_file",
    "make_splits",
    "read_case_table",
    "read_fold",
    "split_dataset",
    "write_splits",
]


@dataclass(frozen=True)
class Fold:
    """One division of the training cases: name ``"0"``, ``"1"``, ... or ``"all"``; sorted case ids."""

    name: str
    train: tuple[str, ...]
    val: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"fold": self.name, "train": list(self.train), "val": list(self.val)}


def make_splits(
    case_ids: Iterable[str],
    settings: SplitSettings,
    table: pandas.DataFrame | None = None,
    duplicates: Mapping[str, str] | None = None,
    *,
    may_lack_folds: bool = False,
) -> tuple[Fold, ...]:
    """All folds, then the fold ``all``.

    Without groups, strata and duplicates the folds equal v2's: ``KFold(folds, shuffle=True, random_state=seed)`` of
    the sorted ids. Otherwise groups are shuffled with that seed and dealt out, the largest first, each to the fold
    where it keeps strata and sizes most even.

    Args:
        case_ids: training cases.
        settings: folds, seed, group, group_pattern, stratify, file, which overrides the others (groups are
            then only looked at for leaks).
        table: the case table (see :func:`read_case_table`), for ``group`` and ``stratify``.
        duplicates: case -> key shared by all cases with the same image; they stay together.
        may_lack_folds: make the fold ``all`` alone where there are too few cases or groups for the others, or where
            the file is of no use, which is a warning.

    Raises:
        DatasetError: fewer cases or groups than folds, cases without a group, a splits file that leaks.
        SettingsError: settings that contradict each other, or name a column that the table does not have.
    """
    ordered = sorted(case_ids)
    if not ordered:
        raise DatasetError("there are no training cases to divide into folds")
    everything = Fold(ALL, tuple(ordered), tuple(ordered))
    groups = groups_of(ordered, settings, table)
    members = _join(ordered, groups, duplicates or {})
    if settings.file is not None:
        try:
            return (*_folds_from_file(Path(settings.file), ordered, groups, duplicates or {}), everything)
        except DatasetError as problem:
            if not may_lack_folds:
                raise
            log.warning("%s\nNo folds are made: all models are trained on all cases", problem)
            return (everything,)
    if may_lack_folds and len(members) < settings.folds:
        return (everything,)
    _require_enough(ordered, members, settings.folds)
    if len(members) == len(ordered) and settings.stratify is None:
        validation = _shuffled_folds(ordered, settings)
    else:
        validation = _dealt_folds(members, strata_of(ordered, settings, table), settings)
    folds = tuple(
        Fold(str(k), tuple(case for case in ordered if case not in part), tuple(sorted(part)))
        for k, part in enumerate(validation)
    )
    return (*folds, everything)


def split_dataset(
    batch_files: Sequence[Path],
    checks_file: Path,
    settings: SplitSettings,
    case_table: Path | str | None,
    output: Path,
    *,
    raw_folder: Path | None = None,
    may_lack_folds: bool = False,
) -> tuple[Fold, ...]:
    """Read inspection's results, divide the cases, write ``output`` (see :func:`write_splits`): the rule ``split``.

    Copies of one image (checks.json) share a fold. With ``raw_folder``, a ``splits_final.json`` in it is used as v2
    does, with a warning, unless groups or strata are asked for.

    Raises:
        DatasetError, SettingsError: see :func:`make_splits` and :func:`read_case_table`.
        DamagedFileError: an inspection file is missing or damaged.
    """
    _, records = read_batches(batch_files)
    table = None if case_table is None else read_case_table(case_table)
    raw_file = None if raw_folder is None else Path(raw_folder) / "splits_final.json"
    if settings.file is None and raw_file is not None and raw_file.is_file():
        if settings.group or settings.group_pattern or settings.stratify:
            log.warning("%s is not used, because groups or strata are configured", raw_file)
        else:
            log.warning(
                "folds are read from %s, as nnU-Net v2 does, and not made by splits.folds (%d) and splits.seed (%d);"
                " move the file away to change that, or name it in splits.file to say so",
                raw_file, settings.folds, settings.seed,
            )  # fmt: skip
            settings = replace(settings, file=str(raw_file))
    duplicates = read_checks(checks_file).duplicate_of
    folds = make_splits(records, settings, table, duplicates, may_lack_folds=may_lack_folds)
    ordered = sorted(records)
    voxels = {case_id: record.label_voxels or {} for case_id, record in records.items()}
    write_splits(output, folds, voxels, groups_of(ordered, settings, table), strata_of(ordered, settings, table))
    return folds


def write_splits(
    folder: Path,
    folds: Sequence[Fold],
    label_voxels_by_case: Mapping[str, Mapping[int, int]],
    groups_by_case: Mapping[str, str],
    strata_by_case: Mapping[str, str] | None = None,
) -> None:
    """Write splits.json (v2's list), fold_{k}.json, fold_all.json and counts.tsv; removes folds of an earlier split."""
    folder = Path(folder)
    names = {f"fold_{fold.name}.json" for fold in folds}
    for fold in folds:
        write_json(folder / f"fold_{fold.name}.json", fold.to_json(), sealed=_IF_ALTERED)
    numbered = [{"train": list(fold.train), "val": list(fold.val)} for fold in folds if fold.name != ALL]
    write_json(folder / "splits.json", numbered)
    write_text(folder / "counts.tsv", counts_table(folds, label_voxels_by_case, groups_by_case, strata_by_case or {}))
    for stale in folder.glob("fold_*.json"):
        if stale.name not in names:
            stale.unlink()


def read_fold(path: Path) -> Fold:
    """Read fold_{k}.json.

    Raises:
        DamagedFileError: it is missing or no such file.
    """
    record = read_json(path)
    try:
        return Fold(str(record["fold"]), tuple(map(str, record["train"])), tuple(map(str, record["val"])))
    except MALFORMED as error:
        raise DamagedFileError(path, f"not a fold file ({brief(repr(error))})") from error


def fold_of_splits_file(path: Path, name: str, index: Path) -> Fold:
    """One fold of a splits file, checked against the cases of a preprocessed store; ``all`` needs no entry in it.

    Args:
        path: splits.json or nnU-Net v2's splits_final.json.
        name: ``0``, ``1``, ... or ``all``.
        index: index.json of the preprocessed cases; its batch files list them.

    Raises:
        DatasetError: there is no such fold, or the file leaks or names unknown cases.
        DamagedFileError: a file is missing or damaged.
    """
    try:
        batches = [read_json(index.with_name(f"{batch}.json")) for batch in read_json(index)["batches"]]
        ordered = sorted(case for batch in batches for case in batch["cases"])
    except MALFORMED as error:
        raise DamagedFileError(index, f"not an index of preprocessed cases ({brief(repr(error))})") from error
    if name == ALL:
        return Fold(ALL, tuple(ordered), tuple(ordered))
    folds = {fold.name: fold for fold in _folds_from_file(path, ordered, {}, {})}
    if name not in folds:
        raise DatasetError(f"{path}: there is no fold {name}; it has {', '.join(folds)}, and there is always `{ALL}`")
    return folds[name]


def counts_table(
    folds: Sequence[Fold],
    label_voxels: Mapping[str, Mapping[int, int]],
    groups: Mapping[str, str],
    strata: Mapping[str, str],
) -> str:
    """TSV, one row a fold and part: cases, groups, cases of each stratum, cases and voxels with each label."""
    labels = sorted({label for voxels in label_voxels.values() for label in voxels})
    kinds = sorted(set(strata.values()))
    header = ["fold", "part", "cases", "groups", *(f"cases:{kind}" for kind in kinds)]
    header += [f"{what}:label {label}" for label in labels for what in ("cases", "voxels")]
    lines = ["\t".join(header)]
    for fold in folds:
        for part, cases in (("train", fold.train), ("val", fold.val)):
            row: list[Any] = [fold.name, part, len(cases), len({groups.get(case, case) for case in cases})]
            row += [sum(strata.get(case) == kind for case in cases) for kind in kinds]
            for label in labels:
                voxels = [label_voxels.get(case, {}).get(label, 0) for case in cases]
                row += [sum(count > 0 for count in voxels), sum(voxels)]
            lines.append("\t".join(" ".join(str(cell).split()) for cell in row))
    return "\n".join(lines) + "\n"


def _shuffled_folds(ordered: Sequence[str], settings: SplitSettings) -> list[set[str]]:
    """scikit-learn's shuffled KFold: consecutive parts of a permutation, the first n mod k one longer (method 9.6)."""
    permutation = np.arange(len(ordered))
    np.random.RandomState(settings.seed).shuffle(permutation)
    return [{ordered[i] for i in part} for part in np.array_split(permutation, settings.folds)]


def _dealt_folds(
    members: Mapping[str, Sequence[str]], strata: Mapping[str, str], settings: SplitSettings
) -> list[set[str]]:
    """Deal whole groups out, largest first, equally large ones in seeded order.

    Each goes to the fold where the sum over strata of (cases in the fold)^2 / (cases in the dataset) grows least, then
    to the fold with the fewest cases, then to the first.
    """
    names = sorted(members)
    np.random.RandomState(settings.seed).shuffle(names)
    names.sort(key=lambda name: -len(members[name]))  # stable: keeps the shuffled order among equals
    kinds = sorted(set(strata.values())) or [""]
    index = {kind: position for position, kind in enumerate(kinds)}
    group_counts = np.zeros((len(names), len(kinds)))
    for row, name in enumerate(names):
        for case in members[name]:
            group_counts[row, index[strata.get(case, "")]] += 1
    totals = group_counts.sum(axis=0)
    counts = np.zeros((settings.folds, len(kinds)))
    folds: list[set[str]] = [set() for _ in range(settings.folds)]
    for name, group in zip(names, group_counts, strict=True):
        growth = (((counts + group) ** 2 - counts**2) / totals).sum(axis=1)
        chosen = min(range(settings.folds), key=lambda k: (round(float(growth[k]), 9), counts[k].sum(), k))
        counts[chosen] += group
        folds[chosen].update(members[name])
    return folds


def _join(
    ordered: Sequence[str], groups: Mapping[str, str], duplicates: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Cases that must stay together, by their first case: equal group or equal image, and what these two link."""
    root = {case_id: case_id for case_id in ordered}

    def find(case_id: str) -> str:
        while root[case_id] != case_id:
            case_id = root[case_id]
        return case_id

    for keys in (groups, duplicates):
        first: dict[str, str] = {}
        for case_id in ordered:
            if case_id in keys:
                a, b = find(first.setdefault(keys[case_id], case_id)), find(case_id)
                root[max(a, b)] = min(a, b)
    joined: dict[str, list[str]] = {}
    for case_id in ordered:
        joined.setdefault(find(case_id), []).append(case_id)
    return {name: tuple(cases) for name, cases in joined.items()}


def _require_enough(ordered: Sequence[str], members: Mapping[str, Sequence[str]], folds: int) -> None:
    if len(members) >= folds:
        return
    cases = f"{len(ordered)} training case{'s' if len(ordered) != 1 else ''}"
    what = (
        cases if len(members) == len(ordered) else f"{cases} in {len(members)} group{'s' if len(members) != 1 else ''}"
    )
    fewer = f"`splits.folds: {len(members)}`, or " if len(members) >= 2 else ""
    raise DatasetError(
        f"{what} cannot be divided into {folds} folds; set {fewer}`training.folds: all` to train one model on all cases"
    )


def _folds_from_file(
    path: Path, ordered: Sequence[str], groups: Mapping[str, str], duplicates: Mapping[str, str]
) -> list[Fold]:
    """v2's splits_final.json: a list of {"train": [...], "val": [...]}, any number of folds."""
    content = read_json(path)
    if (
        not isinstance(content, list)
        or not content
        or not all(
            isinstance(entry, dict) and all(isinstance(entry.get(part), list) for part in ("train", "val"))
            for entry in content
        )
    ):
        raise DatasetError(
            f'{path}: must be a list of {{"train": [...], "val": [...]}}; see nnU-Net\'s splits_final.json'
        )
    folds = [Fold(str(k), _ids(entry["train"]), _ids(entry["val"])) for k, entry in enumerate(content)]
    problems = [problem for fold in folds for problem in _file_problems(fold, set(ordered), groups, duplicates)]
    if problems:
        raise DatasetError(
            f"{path}: the folds cannot be used; correct the file\n" + "\n".join(f"  {p}" for p in problems[:20])
        )
    used = {case for fold in folds for case in (*fold.train, *fold.val)}
    unused = sorted(set(ordered) - used)
    if unused:
        log.warning("%s: %d cases are in no fold, for example %s", path, len(unused), unused[0])
    return folds


def _ids(listed: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(case_id) for case_id in listed}))


def _file_problems(
    fold: Fold, known: Collection[str], groups: Mapping[str, str], duplicates: Mapping[str, str]
) -> list[str]:
    problems = [f"fold {fold.name}: {part} is empty" for part in ("train", "val") if not getattr(fold, part)]
    cases = (*fold.train, *fold.val)
    unknown = sorted({case for case in cases if case not in known})
    if unknown:
        problems.append(f"fold {fold.name}: there is no training case {', '.join(map(brief, unknown[:5]))}")
    for what, keys in (
        ("case", {case: case for case in cases}),
        ("group", groups),
        ("image (equal voxels under two names)", duplicates),
    ):
        leaks = sorted(
            {keys[case] for case in fold.train if case in keys} & {keys[case] for case in fold.val if case in keys}
        )
        if leaks:
            problems.append(f"fold {fold.name}: {what} {', '.join(leaks[:5])} is in training and validation: a leak")
    return problems
