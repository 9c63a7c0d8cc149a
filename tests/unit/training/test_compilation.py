"""When a training is compiled, and what happens where compiling does not work."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.exc import InductorError

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


class Drawing(torch.nn.Module):
    """A network whose training steps leave traces besides gradients: random numbers and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.Conv2d(4, 2, 1)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        output = self.layers(images)
        return [output, output[..., ::2, ::2]]


def steps_of(compile: bool | None, device: torch.device) -> list[torch.Tensor]:
    """Weights, statistics and the next random number after three training steps."""
    torch.manual_seed(3)
    network = Drawing()
    forward = forward_of(network, settings(LEAST_STEPS, compile), device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        first, second = forward(torch.arange(128.0).reshape(2, 1, 8, 8) / 128 + step)
        (first.square().mean() + second.square().mean()).backward()
        optimizer.step()
    with torch.no_grad():
        last = forward(torch.ones(2, 1, 8, 8))[0]
    return [*network.state_dict().values(), last, torch.rand(1)]


def as_it_is(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    return graph.forward


def fails_as_inductor_does(graph: Any, inputs: Any) -> Any:
    raise InductorError(RuntimeError("no kernel for this backward pass"), None)


@pytest.mark.parametrize("backward", [as_it_is, fails_as_inductor_does])
def test_whether_the_backward_pass_compiles_or_not_a_step_is_the_step_without_compiling(
    backward: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = aot_autograd(fw_compiler=as_it_is, bw_compiler=backward)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(compilation, "_has_triton", lambda: True)
    expected = steps_of(False, CPU)
    found = steps_of(None, CUDA)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("segwright")]
    assert ["no kernel for this backward pass" in text for text in said] == [True] * (backward is not as_it_is)
    if backward is not as_it_is:
        with pytest.raises(SettingsError, match=r"no kernel for this backward pass.*compile: false"):
            steps_of(True, CPU)
