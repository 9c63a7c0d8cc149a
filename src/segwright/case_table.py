"""The case table and the case names: which patient, site or stratum a case belongs to."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segwright.core.errors import DatasetError, SettingsError, some
from segwright.core.settings import SplitSettings

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

_MOST_STRATA = 10  # a numeric column with more different values is cut into as many ranges as there are folds


def read_case_table(path: Path | str) -> pandas.DataFrame:
    """Read a table with a column ``case``, separated by tabs, semicolons or commas; every cell is text.

    Raises:
        DatasetError: no such file, no table, no column ``case``, or a case twice.
    """
    import pandas

    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"case table {path}: the file does not exist; correct `case_table`")
    try:
        with path.open(encoding="utf-8-sig") as stream:
            first_line = stream.readline()
        separator = next((mark for mark in "\t;" if mark in first_line), ",")
        table = pandas.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # pandas' errors and wrong encodings
        raise DatasetError(f"case table {path}: is no table ({error}); save it as TSV or CSV in UTF-8") from None
    table.columns = pandas.Index([str(column).strip() for column in table.columns])
    if "case" not in table.columns:
        found = ", ".join(table.columns)
        raise DatasetError(f"case table {path}: there is no column `case` with the case ids (found: {found}); add it")
    table["case"] = table["case"].str.strip()
    twice = table["case"][table["case"].duplicated()].tolist()
    if twice:
        raise DatasetError(f"case table {path}: case {twice[0]} has two rows; remove one")
    return table


def groups_of(case_ids: Sequence[str], settings: SplitSettings, table: pandas.DataFrame | None) -> dict[str, str]:
    """Case -> group, by the column ``group`` or the expression ``group_pattern``; empty without either.

    A column without a table is overridden by ready-made folds (``splits.file``); with one, leaks are looked for.

    Raises:
        DatasetError: a case has no group.
        SettingsError: both are set, the expression is none, or the column does not exist.
    """
    if settings.group is not None and settings.group_pattern is not None:
        raise SettingsError("splits: give either `group` (a column) or `group_pattern` (an expression), not both")
    if settings.group is not None and not (table is None and settings.file is not None):
        groups = _column(case_ids, settings.group, table, "group")
        _require_all(case_ids, groups, f"have no value in column `{settings.group}` of the case table; fill it in")
        return groups
    if settings.group_pattern is None:
        return {}
    try:
        pattern = re.compile(settings.group_pattern)
    except re.error as error:
        raise SettingsError(
            f"splits.group_pattern {settings.group_pattern!r} is no regular expression: {error}"
        ) from None
    matches = {case_id: pattern.search(case_id) for case_id in case_ids}
    groups = {case_id: (match[1] if pattern.groups else match[0]) or "" for case_id, match in matches.items() if match}
    groups = {case_id: group for case_id, group in groups.items() if group}
    _require_all(case_ids, groups, f"do not match splits.group_pattern {settings.group_pattern!r}; correct it")
    return groups


def strata_of(case_ids: Sequence[str], settings: SplitSettings, table: pandas.DataFrame | None) -> dict[str, str]:
    """Case -> stratum, by the column ``stratify``; empty without it, and without a table beside ready-made folds.

    Cases without a value are a stratum of their own. A numeric column with more than ten different values is cut at
    its quantiles into as many ranges as there are folds.

    Raises:
        DatasetError: no case has a value, and there are no ready-made folds.
        SettingsError: the column does not exist.
    """
    if settings.stratify is None or (table is None and settings.file is not None):
        return {}
    strata = _column(case_ids, settings.stratify, table, "stratify")
    if not strata and settings.file is None:
        raise DatasetError(
            f"splits: no case has a value in column `{settings.stratify}` of the case table; fill it in, and name the"
            f" cases in the column `case` as their files are named, for example {case_ids[0]}"
        )
    try:
        numbers = {case_id: float(value) for case_id, value in strata.items()}
    except ValueError:
        numbers = {}
    if len(set(numbers.values())) > _MOST_STRATA:
        cuts = np.quantile(list(numbers.values()), np.arange(1, settings.folds) / settings.folds)
        strata = {case_id: f"range {int(np.searchsorted(cuts, number)) + 1}" for case_id, number in numbers.items()}
    return {case_id: strata.get(case_id, "(no value)") for case_id in case_ids}


def _column(case_ids: Sequence[str], column: str, table: pandas.DataFrame | None, option: str) -> dict[str, str]:
    """Case -> text in a column of the case table, for the cases that have one."""
    if table is None:
        raise SettingsError(f"splits.{option} is `{column}` but the dataset has no `case_table`; name one")
    if column not in table.columns or column == "case":
        found = ", ".join(name for name in table.columns if name != "case")
        raise SettingsError(f"splits.{option}: the case table has no column `{column}`; it has: {found}")
    values = dict(zip(table["case"], table[column], strict=True))
    strange = sorted({str(case) for case in values} - set(case_ids))
    if strange:
        log.warning("the case table has rows for %d unknown cases, for example %s", len(strange), strange[0])
    texts = {case: str(values.get(case, "")).strip() for case in case_ids}
    return {case: text for case, text in texts.items() if text}


def _require_all(case_ids: Sequence[str], groups: Mapping[str, str], problem: str) -> None:
    missing = [case_id for case_id in case_ids if case_id not in groups]
    if missing:
        raise DatasetError(f"splits: {some(missing)} {problem}")
