"""Folds: v2's own, grouped, stratified, from a file (method 9.6); no group or copy is ever on both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.case_table import strata_of
from segwright.core.errors import DamagedFileError, DatasetError, SettingsError
from segwright.core.settings import SplitSettings
from segwright.splits import Fold, fold_of_splits_file, make_splits, read_case_table, read_fold, write_splits

TEN = [f"case_{i:02d}" for i in range(10)]


def _table(tmp_path: Path, rows: dict[str, str], column: str = "patient") -> Any:
    path = tmp_path / "cases.tsv"
    path.write_text(f"case\t{column}\n" + "".join(f"{case}\t{value}\n" for case, value in rows.items()))
    return read_case_table(path)


def _write(tmp_path: Path, content: Any) -> SplitSettings:
    (tmp_path / "splits.json").write_text(json.dumps(content))
    return SplitSettings(file=str(tmp_path / "splits.json"))


def test_default_is_v2s_split() -> None:
    """Golden: method 15, scikit-learn's KFold(5, shuffle=True, random_state=12345) on ten cases."""
    *folds, everything = make_splits(reversed(TEN), SplitSettings())
    assert [{TEN.index(case) for case in fold.val} for fold in folds] == [{0, 7}, {3, 9}, {4, 6}, {1, 8}, {2, 5}]
    assert [fold.name for fold in folds] == ["0", "1", "2", "3", "4"]
    assert folds[0].train == tuple(TEN[i] for i in (1, 2, 3, 4, 5, 6, 8, 9))
    assert everything == Fold("all", tuple(TEN), tuple(TEN))


def test_first_folds_take_the_rest() -> None:
    folds = make_splits([str(i) for i in range(17)], SplitSettings(folds=5))[:-1]
    assert [len(fold.val) for fold in folds] == [4, 4, 3, 3, 3]


def test_groups_of_one_case_give_v2s_split(tmp_path: Path) -> None:
    table = _table(tmp_path, {case: f"p{case}" for case in TEN})
    assert make_splits(TEN, SplitSettings(group="patient"), table) == make_splits(TEN, SplitSettings())


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=14),
    folds=st.integers(2, 5),
    seed=st.integers(0, 99),
    copies=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=2),
)
def test_no_group_and_no_copy_on_both_sides(
    sizes: list[int], folds: int, seed: int, copies: list[tuple[int, int]]
) -> None:
    ids = [f"P{group}_{scan}" for group, size in enumerate(sizes) for scan in range(size)]
    duplicates = {f"P{group}_0": f"image{k}" for k, pair in enumerate(copies) for group in pair if group < len(sizes)}
    wanted = SplitSettings(folds=folds, seed=seed, group_pattern=r"^(P\d+)_")
    try:
        *made, _ = make_splits(ids, wanted, duplicates=duplicates)
    except DatasetError as error:
        assert "cannot be divided" in str(error) and len(sizes) - 2 < folds
        return
    assert sorted(case for fold in made for case in fold.val) == sorted(ids)
    for fold in made:
        assert fold.val and not set(fold.train) & set(fold.val) and len(fold.train) + len(fold.val) == len(ids)
        assert not {case.split("_")[0] for case in fold.train} & {case.split("_")[0] for case in fold.val}
        image = {duplicates[case] for case in fold.train if case in duplicates}
        assert not image & {duplicates[case] for case in fold.val if case in duplicates}
    assert make_splits(reversed(ids), wanted, duplicates=duplicates)[:-1] == tuple(made)


def test_large_groups_are_balanced() -> None:
    ids = [f"P{group}_{scan}" for group, size in enumerate([6, 5, 4, 3, 2, 2, 1, 1]) for scan in range(size)]
    folds = make_splits(ids, SplitSettings(folds=4, group_pattern=r"P\d+"))[:-1]
    assert sorted(len(fold.val) for fold in folds) == [6, 6, 6, 6]


def test_strata_are_spread_evenly(tmp_path: Path) -> None:
    ids = [f"c{i:02d}" for i in range(30)]
    table = _table(tmp_path, {case: "rare" if i % 6 == 0 else "usual" for i, case in enumerate(ids)}, "site")
    folds = make_splits(ids, SplitSettings(stratify="site"), table)[:-1]
    rare = set(ids[::6])
    assert [len(rare & set(fold.val)) for fold in folds] == [1] * 5
    assert [len(fold.val) for fold in folds] == [6] * 5


def test_numbers_are_stratified_by_range(tmp_path: Path) -> None:
    ids = [f"c{i:02d}" for i in range(25)]
    table = _table(tmp_path, {case: str(20 + i * 1.5) for i, case in enumerate(ids)}, "age")
    for fold in make_splits(ids, SplitSettings(stratify="age"), table)[:-1]:
        assert [sum(5 * part <= ids.index(case) < 5 * part + 5 for case in fold.val) for part in range(5)] == [1] * 5


def test_strata_that_no_case_has_are_refused(tmp_path: Path) -> None:
    for rows in (dict.fromkeys(TEN, " "), {case.upper(): "north" for case in TEN}):
        with pytest.raises(DatasetError, match=r"no case has a value in column `site` .* for example case_00"):
            make_splits(TEN, SplitSettings(stratify="site"), _table(tmp_path, rows, "site"))
    some = _table(tmp_path, {TEN[0]: "north"}, "site")
    assert len(make_splits(TEN, SplitSettings(stratify="site"), some)) == 6


def test_too_few_cases_say_what_to_do() -> None:
    with pytest.raises(DatasetError, match=r"3 training cases cannot be .* 5 folds; set `splits.folds: 3`.*folds: all"):
        make_splits(TEN[:3], SplitSettings())
    with pytest.raises(DatasetError, match=r"1 training case cannot .* set `training.folds: all`"):
        make_splits(TEN[:1], SplitSettings())
    with pytest.raises(DatasetError, match=r"10 training cases in 1 group cannot"):
        make_splits(TEN, SplitSettings(group_pattern="case"))


def test_folds_that_nobody_must_have_are_made_where_there_are_cases_enough() -> None:
    """A cascade trained on all cases needs them, and a dataset too small for them is fine without."""
    assert make_splits(TEN, SplitSettings(), may_lack_folds=True) == make_splits(TEN, SplitSettings())
    assert make_splits(TEN[:4], SplitSettings(), may_lack_folds=True) == (Fold("all", tuple(TEN[:4]), tuple(TEN[:4])),)
    one_group = SplitSettings(group_pattern="case")
    assert [fold.name for fold in make_splits(TEN, one_group, may_lack_folds=True)] == ["all"]


def test_a_file_of_no_use_is_no_error_where_nobody_must_have_folds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """v2 does not look at its splits file when it trains on all cases."""
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": TEN[:8], "val": ["removed"]}]))
    wanted = SplitSettings(file=str(path))
    with pytest.raises(DatasetError, match="fold 0: there is no training case removed"):
        make_splits(TEN, wanted)
    assert make_splits(TEN, wanted, may_lack_folds=True) == (Fold("all", tuple(TEN), tuple(TEN)),)
    assert "there is no training case removed" in caplog.text and "No folds are made" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        (SplitSettings(group="patient"), SettingsError, "no `case_table`"),
        (SplitSettings(group="a", group_pattern="b"), SettingsError, "not both"),
        (SplitSettings(group_pattern="("), SettingsError, "no regular expression"),
        (SplitSettings(group_pattern=r"^(P\d+)"), DatasetError, "case_00, case_01.* and 5 more do not match"),
    ],
)
def test_groups_that_cannot_be_made(wanted: SplitSettings, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make_splits(TEN, wanted)


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    table = _table(tmp_path, dict.fromkeys(TEN[:9], "NA") | {TEN[9]: ""})
    with pytest.raises(SettingsError, match="no column `site`; it has: patient"):
        make_splits(TEN, SplitSettings(group="site"), table)
    with pytest.raises(DatasetError, match="case_09 have no value in column `patient`"):
        make_splits(TEN, SplitSettings(group="patient"), table)
    (tmp_path / "twice.csv").write_text("case,site\na,1\na,2\n")
    with pytest.raises(DatasetError, match="case a has two rows"):
        read_case_table(tmp_path / "twice.csv")
    (tmp_path / "other.csv").write_text("id;site\na;1\n")
    with pytest.raises(DatasetError, match=r"no column `case`.*found: id, site"):
        read_case_table(tmp_path / "other.csv")
    with pytest.raises(DatasetError, match="does not exist"):
        read_case_table(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    "content", ["case,site\na,NA\nb,2\n", "\ufeffcase;site\n a ;NA\nb;2\n", "case\tsite\na\tNA\nb\t2\n"]
)
def test_tables_in_common_dialects(tmp_path: Path, content: str) -> None:
    (tmp_path / "table.csv").write_text(content)
    table = read_case_table(tmp_path / "table.csv")
    assert dict(zip(table["case"], table["site"], strict=True)) == {"a": "NA", "b": "2"}  # NA may be a patient's name


def test_folds_from_a_file(tmp_path: Path) -> None:
    wanted = _write(tmp_path, [{"train": TEN[:6], "val": TEN[6:8]}, {"train": TEN[2:], "val": TEN[:2]}])
    folds = make_splits(TEN, wanted)
    assert [fold.name for fold in folds] == ["0", "1", "all"]
    assert folds[1] == Fold("1", tuple(TEN[2:]), tuple(TEN[:2]))


def test_a_file_overrides_columns_of_a_table_that_is_not_there(tmp_path: Path) -> None:
    file = _write(tmp_path, [{"train": TEN[:5], "val": TEN[5:]}]).file
    for wanted in (SplitSettings(group="patient"), SplitSettings(stratify="site")):
        assert make_splits(TEN, replace(wanted, file=file))[0] == Fold("0", tuple(TEN[:5]), tuple(TEN[5:]))
        with pytest.raises(SettingsError, match="no `case_table`"):
            make_splits(TEN, wanted)


def test_strata_that_no_case_has_do_not_matter_beside_a_file(tmp_path: Path) -> None:
    wanted = replace(_write(tmp_path, [{"train": TEN[:5], "val": TEN[5:]}]), stratify="site")
    strata = strata_of(TEN, wanted, _table(tmp_path, {case.upper(): "north" for case in TEN}, "site"))
    assert set(strata.values()) == {"(no value)"}


def test_one_fold_of_a_file_for_a_preprocessed_store(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"batches": {"batch_0": "x", "batch_1": "y"}}))
    for k in range(2):
        (tmp_path / f"batch_{k}.json").write_text(json.dumps({"cases": {case: {} for case in TEN[k::2]}}))
    _write(tmp_path, [{"train": TEN[:6], "val": TEN[6:8]}])
    path, index = tmp_path / "splits.json", tmp_path / "index.json"
    assert fold_of_splits_file(path, "0", index) == Fold("0", tuple(TEN[:6]), tuple(TEN[6:8]))
    assert fold_of_splits_file(path, "all", index).train == tuple(TEN)
    with pytest.raises(DatasetError, match="no fold 3; it has 0"):
        fold_of_splits_file(path, "3", index)


def test_files_that_leak_are_refused_with_all_reasons(tmp_path: Path) -> None:
    wanted = _write(tmp_path, [{"train": TEN[:6], "val": TEN[5:8]}, {"train": [*TEN[2:], "who"], "val": []}])
    with pytest.raises(DatasetError) as caught:
        make_splits(TEN, wanted)
    for part in ("fold 0: case case_05 is in training and validation", "fold 1: val is empty", "no training case who"):
        assert part in str(caught.value)
    wanted = _write(tmp_path, [{"train": TEN[:5], "val": TEN[5:]}])
    with pytest.raises(DatasetError, match=r"fold 0: image .* case_00 is in training and validation: a leak"):
        make_splits(TEN, wanted, duplicates={"case_00": "case_00", "case_07": "case_00"})
    table = _table(tmp_path, {case: f"p{i // 4}" for i, case in enumerate(TEN)})
    grouped = SplitSettings(file=wanted.file, group="patient")
    with pytest.raises(DatasetError, match="fold 0: group p1 is in training and validation"):
        make_splits(TEN, grouped, table)
    (tmp_path / "splits.json").write_text('{"train": []}')
    with pytest.raises(DatasetError, match="must be a list"):
        make_splits(TEN, wanted)


def test_written_files(tmp_path: Path) -> None:
    folds = make_splits(TEN, SplitSettings())
    (tmp_path / "fold_9.json").write_text("{}")
    voxels = {case: {0: 90, 1: 10} if i % 2 else {0: 100} for i, case in enumerate(TEN)}
    groups = {case: f"p{i // 5}" for i, case in enumerate(TEN)}
    write_splits(tmp_path, folds, voxels, groups, dict.fromkeys(TEN, "north"))
    listed = json.loads((tmp_path / "splits.json").read_text())
    assert len(listed) == 5 and listed[0] == {"train": list(folds[0].train), "val": ["case_00", "case_07"]}
    assert read_fold(tmp_path / "fold_3.json") == folds[3]
    assert read_fold(tmp_path / "fold_all.json") == folds[-1]
    assert not (tmp_path / "fold_9.json").exists()
    lines = [line.split("\t") for line in (tmp_path / "counts.tsv").read_text().splitlines()]
    assert lines[0] == [
        "fold", "part", "cases", "groups", "cases:north",
        "cases:label 0", "voxels:label 0", "cases:label 1", "voxels:label 1",
    ]  # fmt: skip
    assert lines[2] == ["0", "val", "2", "2", "2", "2", "190", "1", "10"]
    assert len(lines) == 1 + 2 * 6
    (tmp_path / "fold_3.json").write_text("[]")
    with pytest.raises(DamagedFileError):
        read_fold(tmp_path / "fold_3.json")
