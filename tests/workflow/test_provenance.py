"""What Snakemake notes of results: plugins that nobody names are no part of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from segwright.phantom import make_phantom
from tests.workflow.runner import TINY, Project

pytestmark = pytest.mark.workflow

NAME = "Dataset900_Phantom"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose data are inspected and planned for."""
    make_phantom("plain", 4, seed=1, output=tmp_path / NAME, test_cases=0)
    dataset = {"path": str(tmp_path / NAME), "splits": {"folds": 2}, "batches": 1}
    project = Project(
        tmp_path / "work", {"datasets": {NAME: dataset}, "defaults": TINY, "execution": {"device": "cpu"}}
    )
    project.must_run("plan_all")
    return project


def test_a_plugin_counts_where_it_is_named(project: Project, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1\n")
    project.config["plugins"] = [str(plugin)]
    assert project.must_run("plan_all").jobs == Counter()
    project.config["defaults"]["training"]["loss"] = "mine"
    assert project.must_run("plan_all").jobs == Counter(plan=1)
    plugin.write_text("x = 2\n")
    assert project.must_run("plan_all").jobs == Counter(plan=1)
