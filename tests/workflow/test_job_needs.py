"""What jobs ask for, where Snakemake asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.workflow.runner import Project

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(120)]


def test_a_dry_run_knows_no_sizes_yet(phantom_project: Callable[..., Project]) -> None:
    """Jobs below a checkpoint are in the graph, and what they need cannot wait for it."""
    project = phantom_project("plain")
    run = project.must_run(options=("--dry-run", "--quiet", "rules"))
    assert "finish_test" in run.output
