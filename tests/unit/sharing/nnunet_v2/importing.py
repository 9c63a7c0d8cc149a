"""Importing a made model, or being refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.core.errors import ModelError, SegwrightError
from segwright.sharing.nnunet_v2.import_model import import_model


def imported(source: Path, tmp_path: Path, **options: Any) -> Path:
    return import_model(source, tmp_path / "out" / "model", **options)


def assert_refused(
    source: Path, tmp_path: Path, words: str, error: type[SegwrightError] = ModelError, **options: Any
) -> None:
    """One message, and nothing written."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=words) as caught:
        imported(source, tmp_path, **options)
    assert "Traceback" not in str(caught.value) and ".part-" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before and not (tmp_path / "out").exists()


class Malicious:
    """Pickled as a command that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)
