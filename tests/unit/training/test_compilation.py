"""When a training is compiled, and what happens where compiling does not work."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from segwright.core.errors import SettingsError
from segwright.core.settings import TrainingSettings
from segwright.training import compilation
from segwright.training.compilation import LEAST_STEPS, forward_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def settings(steps: int, compile: bool | None = None) -> TrainingSettings:
    return TrainingSettings(epochs=2, iterations=steps // 2, compile=compile)


def without_compiler(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler here")


@pytest.mark.parametrize(
    ("wanted", "device", "steps", "triton", "compiles"),
    [
        (None, CUDA, LEAST_STEPS, True, True),
        (None, CUDA, LEAST_STEPS - 2, True, False),
        (None, CUDA, LEAST_STEPS, False, False),
        (None, CPU, LEAST_STEPS, True, False),
        (True, CPU, 2, False, True),
        (False, CUDA, LEAST_STEPS, True, False),
    ],
)
def test_when_it_compiles(
    wanted: bool | None, device: torch.device, steps: int, triton: bool, compiles: bool, network: torch.nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(compilation, "_has_triton", lambda: triton)
    assert (forward_of(network, settings(steps, wanted), device) is not network) == compiles


def test_nobody_asked_for_it_and_it_fails(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=without_compiler))
    monkeypatch.setattr(compilation, "_has_triton", lambda: True)
    forward = forward_of(network, settings(LEAST_STEPS), CUDA)
    images = torch.ones(1, 3)
    assert torch.equal(forward(images), network(images)) and torch.equal(forward(images), network(images))
    (said,) = [record for record in caplog.records if record.name.startswith("segwright")]
    assert said.levelname == "WARNING" and "no compiler here" in said.getMessage()


def test_it_was_asked_for_and_fails(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=without_compiler))
    with pytest.raises(SettingsError, match=r"no compiler here.*compile: false"):
        forward_of(network, settings(2, True), CPU)(torch.ones(1, 3))
