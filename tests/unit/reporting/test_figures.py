"""Plots: drawn for unusual data too, the same bytes each time."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segwright.core.labels import Labels
from segwright.evaluation.metrics import Counts
from segwright.evaluation.summary import CaseResult, Summary, make_summary
from segwright.reporting.figures import curves_plot, dice_plot, fingerprint_plot
from segwright.reporting.results import FoldHistory


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def fingerprint(channels: int, cases: int = 3, depth: int = 9) -> dict[str, Any]:
    statistics = {"mean": 1.0, "std": 2.0, "percentile_00_5": -3.0, "percentile_99_5": 4.0}
    return {
        "shapes_after_crop": [[depth, 10 + case, 12] for case in range(cases)],
        "spacings": [[1.0, 1.0, 1.0]] * cases,
        "foreground_intensity_properties_per_channel": {str(index): statistics for index in range(channels)},
    }


@pytest.mark.parametrize(("channels", "depth"), [(1, 9), (3, 1), (9, 9)])
def test_fingerprints_with_few_or_many_channels(channels: int, depth: int) -> None:
    names = [f"$channel_{index}$" for index in range(channels)]  # dollars must not be read as a formula
    assert size(fingerprint_plot(fingerprint(channels, depth=depth), names))[0] == 1760


def history(fold: str, epochs: int) -> FoldHistory:
    rows = [{"epoch": e, "train_loss": -0.1 * e, "val_loss": None, "mean_fg_dice": None} for e in range(epochs)]
    return FoldHistory("2d", fold, tuple(rows), {})


def test_curves_without_validation_and_with_a_single_epoch() -> None:
    histories = [history("all", 1), history("0", 5)]
    assert curves_plot(histories) == curves_plot(histories)


def summary(structures: int, cases: int = 4) -> tuple[Summary, dict[Any, str]]:
    labels = Labels((("background", 0), *((f"structure {value}", value) for value in range(1, structures + 1))))
    rng = np.random.default_rng(0)
    results = []
    for name in (f"c{index}" for index in range(cases)):
        counts = {key: Counts(*map(int, rng.integers(0, 9, 4))) for key in labels.foreground_keys}
        results.append(CaseResult(name, counts, "", name))
    return make_summary(results, labels), {key: labels.name_of(key) for key in labels.foreground_keys}


def test_dice_has_a_panel_a_structure_until_there_are_too_many() -> None:
    few, names = summary(3)
    one = size(dice_plot({"a": few}, names, "a"))
    two = size(dice_plot({"a": few, "b": few, "a+b": few}, names, "b"))
    assert two[1] > one[1]
    many, names = summary(40)
    assert size(dice_plot({"a": many, "b": many}, names, "b"))[1] > 1500


def test_a_structure_that_never_occurs_can_be_drawn() -> None:
    labels = Labels((("background", 0), ("never", 1)))
    empty = make_summary([CaseResult("c", {1: Counts(0, 0, 0, 9)}, "", "c")], labels)
    assert dice_plot({"a": empty}, {1: "never"}, "a").startswith(b"\x89PNG")
