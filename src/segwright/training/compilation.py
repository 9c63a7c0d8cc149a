"""torch.compile: when it pays, and what happens where it does not work (method 9.1: v2 compiles on CUDA)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segwright.core.errors import SettingsError
from segwright.core.settings import TrainingSettings
from segwright.networks.device import is_out_of_memory
from segwright.training.loop import as_list

log = logging.getLogger(__name__)

LEAST_STEPS = 1000
"""Compiling takes about a minute, and saves a third of a step: 17 to 28 ms on an H100, 80 s in so many steps."""
_COMPILER = ("torch._dynamo", "torch._inductor", "triton")  # where the errors of torch.compile are from


def forward_of(network: nn.Module, settings: TrainingSettings, device: torch.device) -> Callable[[Tensor], Any]:
    """What a training calls: the network itself or what torch.compile makes of it. Its weights keep their names.

    Args:
        settings: resolved. ``compile`` None: on CUDA with Triton and at least :data:`LEAST_STEPS` steps to go, and as
            long as it works.
    """
    if settings.compile is not None:
        return _compiled(network, must_work=True) if settings.compile else network
    steps = (settings.epochs or 0) * (settings.iterations or 0)
    pays = device.type == "cuda" and steps >= LEAST_STEPS and _has_triton()
    return _compiled(network, must_work=False) if pays else network


def _has_triton() -> bool:
    """Whether what torch.compile writes GPU code with is installed; it comes with torch on Linux only."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _compiled(network: nn.Module, must_work: bool) -> Callable[[Tensor], Any]:
    """torch.compile works at the first training step, and once more at the first validation.

    Raises:
        SettingsError: (when called) it does not work here, and it must.
    """
    forward: Callable[[Tensor], Any] = torch.compile(network)
    tried = False

    def call(images: Tensor) -> Any:
        nonlocal forward, tried
        if forward is not network:
            try:
                if torch.is_grad_enabled() and not tried:
                    _try_a_step(network, forward, images)
                    tried = True
                return forward(images)
            except Exception as problem:  # compilers share no public type of error; what is not theirs is raised on
                if is_out_of_memory(problem) or not type(problem).__module__.startswith(_COMPILER):
                    raise
                why = " ".join(str(problem).split("\n\n")[0].splitlines())
                if must_work:
                    raise SettingsError(
                        f"training.compile: torch.compile fails here ({why}); install a C++ compiler, for a GPU Triton "
                        "too, or set training.compile: false"
                    ) from problem
                log.warning("torch.compile fails here (%s); training goes on without it, more slowly", why)
                forward = network
        return network(images)  # only here, where what the failed attempt had in memory is gone

    return call


def _try_a_step(network: nn.Module, forward: Callable[[Tensor], Any], images: Tensor) -> None:
    """Forward and backward, and nothing of it stays: no gradient, no changed statistics, no used random numbers.

    The backward pass is compiled when it is first run. Where that fails, a training has used random numbers and changed
    statistics in its forward pass, and could not begin the step anew.
    """
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
            outputs = as_list(forward(images))
            with torch.autocast(images.device.type, enabled=False):  # a backward pass is run outside of it
                torch.stack([output.float().sum() for output in outputs]).sum().backward()
    finally:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
