"""Counts, pseudo Dice and moving average (method 9.3)."""

from __future__ import annotations

import math

import numpy as np
import torch

from segwright.training.loss import LossOptions
from segwright.training.metrics import dice_per_class, hard_counts, mean_dice, moving_average


def one_hot_logits(labels: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).float().T.reshape(1, classes, 1, -1)


def test_label_counts_without_background_and_ignored_voxels() -> None:
    logits = one_hot_logits([1, 1, 2, 0, 2, 1], 3)
    target = torch.tensor([1, 2, 2, 1, 0, 3], dtype=torch.int16).reshape(1, 1, 1, -1)
    counts = hard_counts(logits, target, LossOptions(3, ignore_label=3))
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[1, 1], [1, 1], [1, 1]]


def test_region_counts_threshold_at_zero_and_mask_by_the_last_channel() -> None:
    logits = torch.tensor([[[[1.0, 1.0, -1.0, 0.0]], [[2.0, -2.0, 2.0, 5.0]]]])
    target = torch.tensor([[[[1, 0, 1, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 1]]]], dtype=torch.uint8)
    counts = hard_counts(logits, target, LossOptions(2, regions=True, ignore_label=7))
    assert counts.tolist() == [[1, 1], [1, 1], [1, 1]]


def test_dice_of_counts() -> None:
    dice = dice_per_class(np.array([[3, 0, 0], [1, 2, 0], [0, 0, 0]]))
    assert dice[:2] == [6 / 7, 0.0] and math.isnan(dice[2])
    assert mean_dice(dice) == 3 / 7
    assert math.isnan(mean_dice([float("nan")]))


def test_moving_average_starts_with_the_first_value_and_survives_nan() -> None:
    assert moving_average(None, 0.5) == 0.5
    assert math.isclose(moving_average(0.5, 1.0), 0.55)
    assert moving_average(0.5, float("nan")) == 0.5
    assert moving_average(float("nan"), 0.25) == 0.25
