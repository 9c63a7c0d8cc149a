"""Phantom projects for workflow tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.phantom import make_phantom
from tests.workflow.runner import TINY, Project


@pytest.fixture
def phantom_project(tmp_path: Path) -> Callable[..., Project]:
    """Make a project on a fresh phantom dataset: ``phantom_project(preset, cases=4, **overrides of the defaults)``."""

    def make(preset: str, *, cases: int = 4, folds: int = 2, **defaults: Any) -> Project:
        data = tmp_path / "data" / "Dataset900_Phantom"
        make_phantom(preset, cases, seed=1, output=data, test_cases=1)
        settings = {section: {**TINY.get(section, {}), **defaults.get(section, {})} for section in {*TINY, *defaults}}
        config = {
            "datasets": {"Dataset900_Phantom": {"path": str(data), "splits": {"folds": folds}, "batches": 2}},
            "defaults": settings,
            "execution": {"device": "cpu"},
        }
        return Project(tmp_path / "work", config)

    return make
