"""Optimizers by name (method 9.1, 14.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from segwright.core.errors import SettingsError
from segwright.core.settings import TrainingSettings


def build_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on all parameters.

    On CUDA it is torch's fused kind: it asks the GPU itself whether gradient scaling skips a step, while the others
    wait for the answer.

    Args:
        network: on the device where it will be trained.
        settings: resolved. The learning rate is set anew at each epoch by the loop.

    Raises:
        SettingsError: the settings were not resolved.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if rate is None or decay is None or settings.optimizer is None:
        raise SettingsError("training: optimizer, learning_rate and weight_decay must be resolved first")
    fused = True if any(weights.device.type == "cuda" for weights in network.parameters()) else None
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=fused)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=decay,
        fused=fused,
    )
    _begin_momentum(optimizer)
    return optimizer


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Continue from a saved state, whatever device it was saved on: which kernels to use is not part of it."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    own_kernels = [{**saved, "fused": own["fused"]} for saved, own in groups]
    optimizer.load_state_dict({**state, "param_groups": own_kernels})
    _begin_momentum(optimizer)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let a fused SGD begin with a momentum of zero, which makes the same first step.

    Where gradient scaling skips the very first step, as it often does, torch's fused SGD leaves its momentum
    uninitialised and then uses it.
    """
    for group in optimizer.param_groups:
        if group["fused"] and group.get("momentum"):
            for weights in group["params"]:
                optimizer.state[weights].setdefault("momentum_buffer", torch.zeros_like(weights))
