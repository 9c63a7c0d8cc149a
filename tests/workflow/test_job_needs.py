"""What jobs ask for, where Snakemake asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.workflow.runner import Project

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(300)]


def test_a_dry_run_knows_no_sizes_yet(phantom_project: Callable[..., Project]) -> None:
    """Jobs below a checkpoint are in the graph, and what they need cannot wait for it."""
    project = phantom_project("plain")
    run = project.must_run(options=("--dry-run", "--quiet", "rules"))
    assert "finish_test" in run.output


def test_a_damaged_file_ends_only_the_jobs_that_read_it(phantom_project: Callable[..., Project]) -> None:
    """What a job needs is asked beside running jobs, which an error would end."""
    project = phantom_project("plain", training={"folds": [0]})
    project.must_run("plan_all", cores=2)
    plans = project.folder / "results/Dataset900_Phantom/default/plan"
    (plans / "2d.train.json").write_text("{")
    run = project.run("train_all", cores=2)
    assert run.exit_code == 1 and run.jobs["train_fold"] == 1, run.output[-3000:]
    assert "2d.train.json: not valid JSON" in run.output and "InputFunctionException" not in run.output
