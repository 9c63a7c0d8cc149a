"""Paths that Snakemake would take for patterns are refused where the configuration is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import SettingsError
from segwright.core.files import write_text
from segwright.experiment import Experiment
from tests.unit.experiments import NAME, make_raw


@pytest.mark.parametrize("name", ["{x}", "a}", "<x>"])
@pytest.mark.parametrize(
    ("option", "config"),
    [
        ("results", {"results": "FILE"}),
        (f"datasets.{NAME}.case_table", {"dataset": {"case_table": "FILE"}}),
        (f"datasets.{NAME}.splits.file", {"dataset": {"splits": {"file": "FILE"}}}),
        ("planning.plans_file", {"planning": {"plans_file": "FILE"}}),
        ("pipelines.b.training.initial_model", {"pipelines": {"b": {"training": {"initial_model": "FILE"}}}}),
    ],
)
def test_options_with_braces(tmp_path: Path, option: str, config: dict[str, Any], name: str) -> None:
    path = tmp_path / name / "file"
    write_text(path, "")
    given = _filled({"dataset": {}, **config}, str(path))
    dataset = {"path": str(make_raw(tmp_path / NAME)), **given.pop("dataset")}
    with pytest.raises(SettingsError) as refused:
        Experiment.load({"datasets": {NAME: dataset}, **given})
    assert str(refused.value) == (
        f"{option} is {path}: the name holds a brace or a word in angle brackets, which the workflow takes for a"
        " wildcard; choose another name"
    )


def test_other_names_are_taken(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / NAME)
    for results in ("a < b > c", "[x]", "100 %", "ä"):
        assert Experiment.load({"datasets": {NAME: {"path": str(raw)}}, "results": results}).settings.results == results


def _filled(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(entry, path) for key, entry in value.items()}
    return path if value == "FILE" else value
