"""Online metrics of the validation patches: counts, pseudo Dice and its moving average (method 9.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segwright.training.loss import LossOptions

EMA_KEEP = 0.9


@torch.no_grad()
def hard_counts(logits: Tensor, target: Tensor, options: LossOptions) -> Tensor:
    """True positive, false positive and false negative voxels of a batch, as int64 (3, classes) on the logits' device.

    Classes are the foreground labels, or all regions. Prediction: arg-max, or logit > 0. Ignored voxels do not count.
    """
    if options.regions:
        valid = None if options.ignore_label is None else target[:, -1:] == 0
        truth = (target if valid is None else target[:, :-1]) != 0
        predicted = logits > 0  # sigmoid > 0.5
    else:
        valid = None if options.ignore_label is None else target != options.ignore_label
        classes = torch.arange(1, options.num_outputs, device=logits.device).view(1, -1, *(1,) * (logits.ndim - 2))
        truth = target == classes
        predicted = logits.argmax(dim=1, keepdim=True) == classes
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    axes = (0, *range(2, logits.ndim))
    true_positive = (truth & predicted).sum(axes)
    return torch.stack((true_positive, predicted.sum(axes) - true_positive, truth.sum(axes) - true_positive))


def dice_per_class(counts: np.ndarray) -> list[float]:
    """2tp / (2tp + fp + fn) of int counts (3, classes); NaN where a class occurs neither in truth nor prediction."""
    true_positive, false_positive, false_negative = counts.astype(np.float64)
    total = 2 * true_positive + false_positive + false_negative
    return [float(2 * tp / n) if n > 0 else float("nan") for tp, n in zip(true_positive, total, strict=True)]


def mean_dice(dice: Sequence[float]) -> float:
    """Mean over the classes that are not NaN; NaN if all are."""
    known = [value for value in dice if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def moving_average(previous: float | None, new: float) -> float:
    """0.9 of the old value and 0.1 of the new; the new one at first. NaN values leave the average as it was."""
    if previous is None or np.isnan(previous):
        return new
    return previous if np.isnan(new) else EMA_KEEP * previous + (1 - EMA_KEEP) * new
