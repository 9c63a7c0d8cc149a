"""The learning rate of each epoch (method 9.1, 14.5). Plain functions of the epoch, so resuming needs no state."""

from __future__ import annotations

import math

from segwright.core.errors import SettingsError
from segwright.core.settings import TrainingSettings

POLY_EXPONENT = 0.9


def learning_rate(epoch: int, settings: TrainingSettings) -> float:
    """Learning rate of ``epoch`` (0-based), constant within the epoch.

    The first ``warmup_epochs`` rise linearly to the initial rate; the decay spans the remaining epochs.

    Args:
        settings: resolved, see :meth:`TrainingSettings.resolved`.
    """
    initial, total, warmup = settings.learning_rate, settings.epochs, settings.warmup_epochs or 0
    if initial is None or total is None:
        raise SettingsError("training: learning_rate and epochs must be resolved first")
    if epoch < warmup:
        return initial * (epoch + 1) / warmup
    progress = min((epoch - warmup) / max(total - warmup, 1), 1.0)
    if settings.decay == "poly":
        return float(initial * (1 - progress) ** POLY_EXPONENT)
    if settings.decay == "cosine":
        return initial * 0.5 * (1 + math.cos(math.pi * progress))
    return initial
