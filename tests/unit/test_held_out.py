"""A cascade needs every case of its previous stage held out once; which splits do that."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import DamagedFileError, SettingsError
from segwright.core.files import read_json, write_json
from segwright.experiment import Experiment
from tests.unit.experiments import NAME, PLAN, load_experiment, make_raw

Load = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return partial(load_experiment, make_raw(tmp_path / NAME))


def write_split(folder: Path, *validations: str, unused: str = "") -> Path:
    """A split of cases named by single letters: what each fold validates; all others but `unused` train."""
    cases = sorted({case for validation in validations for case in validation} | set(unused) | set("abcd"))
    folds = [
        {"train": [case for case in cases if case not in {*validation, *unused}], "val": list(validation)}
        for validation in validations
    ]
    write_json(folder / "splits.json", folds)
    write_json(folder / "fold_all.json", {"fold": "all", "train": cases, "val": cases})
    return folder


@pytest.mark.parametrize(
    ("folds", "validations", "unused", "problem"),
    [
        (None, ("ab", "cd"), "", None),
        ("all", ("ab", "cd"), "", None),
        (None, ("ab", "c"), "d", None),  # no cascade meets a case that is in no fold
        ("all", ("ab", "c"), "d", r"1 cases are not, for example d \(in 0\)"),
        (None, ("a", "c"), "", r"2 cases are not, for example b \(in 0\)"),
        ([0], ("ab", "bc", "d"), "", r"1 cases are not, for example b \(in 2\)"),
        ("all", (), "", "the cases or their groups are too few for 3 folds"),
    ],
)
def test_a_cascade_needs_every_case_held_out_once(
    load: Load, tmp_path: Path, folds: Any, validations: tuple[str, ...], unused: str, problem: str | None
) -> None:
    experiment = load({"splits": {"folds": len(validations) or 3}}, training={"folds": folds})
    split = write_split(tmp_path / "splits", *validations, unused=unused)
    for name in ("2d", "3d_fullres", "3d_cascade_fullres"):
        experiment.require_held_out_cases(NAME, "default", name, PLAN, split)
    if problem is None:
        experiment.require_held_out_cases(NAME, "default", "3d_lowres", PLAN, split)
        return
    with pytest.raises(SettingsError, match=problem) as caught:
        experiment.require_held_out_cases(NAME, "default", "3d_lowres", PLAN, split)
    assert "training.configurations (planned besides: 2d, 3d_lowres, 3d_fullres)" in str(caught.value)
    without = load(training={"folds": folds, "configurations": ["2d", "3d_lowres"]})
    without.require_held_out_cases(NAME, "default", "3d_lowres", PLAN, split)


def test_a_cascade_on_all_cases_names_the_file_whose_folds_cannot_be_used(load: Load, tmp_path: Path) -> None:
    ready = tmp_path / "splits_final.json"
    write_json(ready, [{"train": ["c0"], "val": ["removed"]}])
    experiment = load({"splits": {"file": str(ready)}}, training={"folds": "all"})
    with pytest.raises(SettingsError, match=rf"the folds of {ready} cannot be used\. Leave it out of"):
        experiment.require_held_out_cases(NAME, "default", "3d_lowres", PLAN, write_split(tmp_path / "splits"))


def test_a_split_is_read_once_until_it_is_made_anew(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every training and prediction of a previous stage asks."""
    read: list[Path] = []

    def read_and_count(path: Path, *how: Any) -> Any:
        read.append(path)
        return read_json(path, *how)

    monkeypatch.setattr("segwright.held_out.read_json", read_and_count)
    experiment, split = load({"splits": {"folds": 2}}), write_split(tmp_path / "splits", "ab", "cd")
    for _ in range(3):
        experiment.require_held_out_cases(NAME, "default", "3d_lowres", PLAN, split)
    assert [path.name for path in read] == ["splits.json", "fold_all.json"]
    write_split(split, "ab", "c")
    os.utime(split / "splits.json", ns=(1, 1))
    with pytest.raises(SettingsError, match=r"1 cases are not, for example d \(in 0\)"):
        experiment.require_held_out_cases(NAME, "default", "3d_lowres", PLAN, split)


def test_an_altered_split_is_named(load: Load, tmp_path: Path) -> None:
    write_json(write_split(tmp_path, "ab", "cd") / "splits.json", [{"train": ["a"]}])
    with pytest.raises(DamagedFileError, match=r"splits\.json: not a list of folds .*; delete the folder it lies in"):
        load().require_held_out_cases(NAME, "default", "3d_lowres", PLAN, tmp_path)
