"""Where made models of nnU-Net v2 lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sharing.nnunet_v2 import made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "nnUNet_results" / made.DATASET
