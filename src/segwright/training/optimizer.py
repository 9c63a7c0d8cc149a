"""Optimizers by name (method 9.1, 14.5)."""

from __future__ import annotations

import torch
from torch import nn

from segwright.core.errors import SettingsError
from segwright.core.settings import TrainingSettings


def build_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on all parameters.

    Args:
        settings: resolved. The learning rate is set anew at each epoch by the loop.

    Raises:
        SettingsError: the settings were not resolved.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if rate is None or decay is None or settings.optimizer is None:
        raise SettingsError("training: optimizer, learning_rate and weight_decay must be resolved first")
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=decay,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
