"""The choice among configurations and pairs, and its postprocessing, against nnU-Net v2's search (method 11.4, 12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.candidates import NOISE, selected
from tests.parity.datasets import READER, reference_dataset

Arrays = dict[str, np.ndarray]
PRESETS = ("plain", "regions", "ignore", "regions_ignore")


@pytest.mark.parametrize("winner", NOISE)
@pytest.mark.parametrize("preset", PRESETS)
def test_selection(
    numbers: dict[str, Any], arrays: Callable[..., Arrays], preset: str, winner: str, tmp_path: Path
) -> None:
    recorded, facts = numbers["selection"][f"{preset}, {winner}"], numbers["evaluation"][f"{preset}_2"]["facts"]
    dataset = reference_dataset(tmp_path / "raw", facts, arrays("evaluation", f"{preset}_2/reference/"))
    found = selected(dataset, READER, NOISE[winner], tmp_path / "results")
    names, scores = zip(*recorded["scores"], strict=True)
    assert tuple(found["scores"]) == names and len(names) == 6
    assert tuple(found["scores"].values()) == pytest.approx(scores, abs=1e-12)
    assert found["members"] == recorded["members"] and found["rules"] == recorded["rules"]
    assert found["score_after"] == pytest.approx(recorded["score_after"], abs=1e-12)


def test_what_was_selected(numbers: dict[str, Any]) -> None:
    """A pair, one configuration alone, and the first of equal ones; with rules and without."""
    members = {key: entry["members"] for key, entry in numbers["selection"].items()}
    for preset in PRESETS:
        assert len(members[f"{preset}, a pair"]) == 2
        assert members[f"{preset}, one alone"] == ["3d_fullres"]
        assert members[f"{preset}, equal ones"] == ["2d"]
    assert len({len(entry["rules"]) for entry in numbers["selection"].values()}) > 1
