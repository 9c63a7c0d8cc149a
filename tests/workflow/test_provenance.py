"""What Snakemake notes of results: plugins that nobody names are no part of it, and of a copy it knows nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from segwright.phantom import make_phantom
from tests.workflow.runner import TINY, Project

pytestmark = pytest.mark.workflow

NAME = "Dataset900_Phantom"
UNKNOWN = "Snakemake does not know with what settings the results of "


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose data are inspected and planned for."""
    make_phantom("plain", 4, seed=1, output=tmp_path / NAME, test_cases=0)
    dataset = {"path": str(tmp_path / NAME), "splits": {"folds": 2}, "batches": 1}
    project = Project(
        tmp_path / "work", {"datasets": {NAME: dataset}, "defaults": TINY, "execution": {"device": "cpu"}}
    )
    assert UNKNOWN not in project.must_run("plan_all").output
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


def test_copied_results_go_on_once_their_settings_are_noted(project: Project) -> None:
    shutil.copytree(project.folder / "results", project.folder / "copy")
    project.config["results"] = "copy"
    run = project.must_run("plan_all")
    assert not run.jobs
    assert run.output.count(f"{UNKNOWN}collect_checks, fingerprint, inspect_batch, plan, require_valid") == 1
    shutil.rmtree(project.folder / "copy" / NAME / "default" / "plan")
    run = project.must_run("plan_all")
    assert run.jobs == Counter(plan=1)
    assert run.output.count(f"{UNKNOWN}collect_checks, fingerprint, inspect_batch, require_valid") == 1
    project.must_run("plan_all", options=("--touch", "--forceall"))
    run = project.must_run("plan_all")
    assert not run.jobs and UNKNOWN not in run.output
    project.config["defaults"]["planning"]["base_features"] = 8
    assert project.must_run("plan_all").jobs == Counter(plan=1)
