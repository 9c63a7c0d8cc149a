"""Learning rates and optimizers (method 9.1, 15)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segwright.core.settings import TrainingSettings
from segwright.training.optimizer import build_optimizer, set_learning_rate
from segwright.training.schedule import learning_rate

STANDARD = TrainingSettings().resolved()


def test_poly_golden_values() -> None:
    """Method 15: epoch 1 of 2 gives 0.00536 (0.01 * 0.5^0.9)."""
    assert learning_rate(1, replace(STANDARD, epochs=2)) == pytest.approx(0.00536, abs=5e-6)
    assert learning_rate(0, STANDARD) == 0.01
    assert learning_rate(999, STANDARD) == pytest.approx(0.01 * 0.001**0.9)


def test_warmup_then_decay_over_the_rest() -> None:
    settings = replace(STANDARD, epochs=12, warmup_epochs=2)
    rates = [learning_rate(epoch, settings) for epoch in range(12)]
    assert rates[:3] == pytest.approx([0.005, 0.01, 0.01])
    assert rates[7] == pytest.approx(0.01 * 0.5**0.9)
    cosine = [learning_rate(epoch, replace(settings, decay="cosine")) for epoch in range(12)]
    assert cosine[7] == pytest.approx(0.005)
    assert {learning_rate(epoch, replace(settings, decay="constant")) for epoch in range(2, 12)} == {0.01}


def test_optimizers_take_their_numbers_from_the_settings() -> None:
    network = torch.nn.Linear(2, 2)
    sgd = build_optimizer(network, STANDARD)
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.99, True, 3e-5)
    assert len(sgd.param_groups) == 1 and len(group["params"]) == 2  # decay on all parameters, biases too
    set_learning_rate(sgd, 0.5)
    assert group["lr"] == 0.5
    adamw = build_optimizer(network, TrainingSettings(schedule="short").resolved())
    assert isinstance(adamw, torch.optim.AdamW) and adamw.param_groups[0]["lr"] == 3e-3
    assert not build_optimizer(network, replace(STANDARD, momentum=0.0)).param_groups[0]["nesterov"]
