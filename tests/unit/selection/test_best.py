from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import PlansError, SettingsError
from segwright.core.files import write_json
from segwright.selection.best import (
    candidate_ids,
    ensemble_pairs,
    read_selection,
    select_best,
    select_without_validation,
)

PLANNED = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres", "mine")


def summary_file(folder: Path, name: str, dice: Mapping[str, float], cases: tuple[str, ...] = ("a", "b")) -> Path:
    """A summary.json with the given mean Dice a label (method 11.2)."""
    values = list(dice.values())
    zero = {"TP": 1, "FP": 0, "FN": 0, "TN": 1}
    record = {
        "foreground_mean": {"Dice": sum(values) / len(values)},
        "mean": {label: {"Dice": value} for label, value in dice.items()},
        "metric_per_case": [
            {"metrics": dict.fromkeys(dice, zero), "prediction_file": f"{case}.nii.gz", "reference_file": "r"}
            for case in cases
        ],
        "segwright": {"cases": list(cases)},
    }
    write_json(folder / name / "summary.json", record)
    return folder / name / "summary.json"


def candidates(folder: Path, scores: Mapping[str, float]) -> dict[str, Path]:
    return {name: summary_file(folder, name, {"1": score}) for name, score in scores.items()}


def test_order_of_candidates() -> None:
    """Method 11.4: v2's list order, then added ones; pairs after single ones."""
    assert candidate_ids(PLANNED)[:5] == ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres", "mine")
    assert candidate_ids(PLANNED)[5:8] == ("2d+3d_fullres", "2d+3d_lowres", "2d+3d_cascade_fullres")
    assert len(ensemble_pairs(PLANNED)) == 10
    assert candidate_ids(PLANNED, ensembles=False) == candidate_ids(PLANNED)[:5]


def test_highest_score_wins(tmp_path: Path) -> None:
    files = candidates(tmp_path, {"2d": 0.8, "3d_fullres": 0.85, "2d+3d_fullres": 0.86})
    selection = select_best(files, PLANNED, tmp_path / "selection.json", folds=range(5), planned_folds=5)
    assert selection.best == "2d+3d_fullres"
    assert selection.members == ("2d", "3d_fullres")
    assert read_selection(tmp_path / "selection.json") == selection
    assert "0.8600; next best 0.8500" in selection.reason


@pytest.mark.parametrize("pair", ["2d+3d_fullres", "3d_fullres+2d"])
def test_ties_go_to_the_first_and_simpler(tmp_path: Path, pair: str) -> None:
    files = candidates(tmp_path, {pair: 0.8, "3d_lowres": 0.8, "3d_fullres": 0.8, "2d": 0.7})
    selection = select_best(files, PLANNED, tmp_path / "selection.json", folds=range(5), planned_folds=5)
    assert selection.best == "3d_fullres"
    assert "shared with 3d_lowres" in selection.reason


def test_deterministic_for_any_order_of_candidates(tmp_path: Path) -> None:
    files = candidates(tmp_path, {"2d": 0.8, "3d_fullres": 0.8, "2d+3d_fullres": 0.7})
    select_best(files, PLANNED, tmp_path / "1.json", folds=range(5), planned_folds=5)
    select_best(dict(reversed(files.items())), PLANNED, tmp_path / "2.json", folds=range(5), planned_folds=5)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_fewer_folds_are_said(tmp_path: Path) -> None:
    files = candidates(tmp_path, {"2d": 0.8})
    selection = select_best(files, PLANNED, tmp_path / "selection.json", folds=[0, 2], planned_folds=5)
    assert selection.folds == ("0", "2")
    assert "Only 2 of 5 planned folds were used (0, 2; 2 cases)" in selection.reason


def test_setting_overrules_scores(tmp_path: Path) -> None:
    files = candidates(tmp_path, {"2d": 0.8, "3d_fullres": 0.9})
    output = tmp_path / "selection.json"
    selection = select_best(files, PLANNED, output, folds=range(5), planned_folds=5, configuration="2d")
    assert selection.best == "2d" and selection.members == ("2d",)
    assert "prediction.configuration" in selection.reason and "3d_fullres (0.9000)" in selection.reason
    with pytest.raises(SettingsError, match="4d"):
        select_best(files, PLANNED, output, folds=range(5), planned_folds=5, configuration="4d")


def test_the_scores_decide_where_the_plans_lack_what_is_set(tmp_path: Path) -> None:
    files, output = candidates(tmp_path, {"2d": 0.8, "3d_fullres": 0.9}), tmp_path / "selection.json"
    setting: dict[str, Any] = {"configuration": "3d_lowres+2d", "lacking": ["3d_lowres"], "planned_folds": 5}
    selection = select_best(files, ("2d", "3d_fullres"), output, folds=range(5), **setting)
    assert selection.best == "3d_fullres" and read_selection(output) == selection
    said = "prediction.configuration is 3d_lowres+2d, but 3d_lowres was not planned for this dataset."
    assert selection.reason.endswith(said)
    chosen = select_without_validation(("2d",), output, **setting)
    assert chosen.best == "2d" and chosen.reason.endswith(said) and "it is the default" in chosen.reason


def test_structures_that_never_occur_do_not_decide(tmp_path: Path) -> None:
    """With NaN, v2's comparison depends on the order of the candidates; here common structures decide."""
    files = {
        "2d": summary_file(tmp_path, "2d", {"1": 0.7, "2": math.nan}),
        "3d_fullres": summary_file(tmp_path, "3d_fullres", {"1": 0.9, "2": math.nan}),
        "3d_lowres": summary_file(tmp_path, "3d_lowres", {"1": 0.8, "2": 0.0}),
    }
    selection = select_best(files, PLANNED, tmp_path / "selection.json", folds=range(5), planned_folds=5)
    assert selection.best == "3d_fullres"
    assert math.isnan(selection.scores["2d"])
    assert "1 of 2 structures never occur" in selection.reason


def test_without_any_structure_to_compare_the_first_one_predicts(tmp_path: Path) -> None:
    files = {
        "3d_fullres": summary_file(tmp_path, "3d_fullres", {"1": math.nan, "2": 0.5}),
        "2d": summary_file(tmp_path, "2d", {"1": 0.5, "2": math.nan}),
    }
    output = tmp_path / "selection.json"
    selection = select_best(files, PLANNED, output, folds=range(5), planned_folds=5)
    said = "no structure has a Dice in all candidates, so nothing can be compared."
    assert selection.best == "2d"
    assert selection.reason == f"2d predicts because it is the first and simplest one: {said}"
    chosen = select_best(files, PLANNED, output, folds=range(5), planned_folds=5, configuration="3d_fullres")
    assert chosen.best == "3d_fullres"
    assert chosen.reason == f"3d_fullres predicts because prediction.configuration says so: {said}"


def test_different_cases_are_an_error(tmp_path: Path) -> None:
    files = {
        "2d": summary_file(tmp_path, "2d", {"1": 0.7}),
        "3d_fullres": summary_file(tmp_path, "3d_fullres", {"1": 0.9}, ("a", "c")),
    }
    with pytest.raises(PlansError, match=r"different cases \(b, c\)"):
        select_best(files, PLANNED, tmp_path / "selection.json", folds=range(5), planned_folds=5)
    with pytest.raises(PlansError, match="nothing_planned"):
        select_best({"nothing_planned": files["2d"]}, PLANNED, tmp_path / "s.json", folds=[0], planned_folds=5)


def test_without_validation(tmp_path: Path) -> None:
    """design 4, decision 10: 3d_fullres, else 2d, else the first; the reason is written."""
    output = tmp_path / "selection.json"
    assert select_without_validation(PLANNED, output, planned_folds=5).best == "3d_fullres"
    selection = select_without_validation(("2d", "3d_lowres"), output, planned_folds=5)
    assert selection.best == "2d" and selection.folds == ("all",) and not selection.scores
    assert "folds: all" in read_selection(output).reason
    assert select_without_validation(("mine",), output, planned_folds=5).best == "mine"
    chosen = select_without_validation(PLANNED, output, planned_folds=5, configuration="3d_lowres")
    assert chosen.best == "3d_lowres"
    with pytest.raises(SettingsError, match="3d_fullres"):
        select_without_validation(("2d",), output, planned_folds=5, configuration="3d_fullres")
