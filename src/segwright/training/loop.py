"""One epoch: training steps and validation steps (method 9.1 to 9.3). Knows nothing of files, states or deadlines."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from segwright.core.errors import SettingsError, TrainingError
from segwright.networks.device import OnTheWay, to_device
from segwright.networks.precision import AUTOCAST_TYPES, resolve_precision
from segwright.training.loss import Loss, LossOptions, Reduce, deep_supervision_weights, keep, weighted_loss
from segwright.training.metrics import hard_counts

log = logging.getLogger(__name__)

_MOST_SKIPPED = 16  # steps in a row; by then the scaler has divided the scale it starts with, 65536, down to 1


class Diverged(TrainingError):
    """Loss or gradient is not finite."""


class BatchLike(Protocol):
    """What a step needs of a batch; see ``training.loader.Batch``. Tensors are on the device already."""

    @property
    def images(self) -> np.ndarray | Tensor: ...
    @property
    def targets(self) -> Sequence[np.ndarray] | Sequence[Tensor]: ...
    @property
    def case_ids(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Compute:
    """Where and how exactly the network is evaluated.

    Attributes:
        autocast_type: float16 or bfloat16 for mixed precision, None for float32.
    """

    device: torch.device
    autocast_type: torch.dtype | None = None

    @property
    def precision(self) -> str:
        return next(name for name, kind in AUTOCAST_TYPES.items() if kind is self.autocast_type)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast_type is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_type)

    def scaler(self) -> torch.amp.GradScaler:
        """Gradient scaling, in use with float16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.autocast_type is torch.float16)


def resolve_compute(precision: str, device: str) -> Compute:
    """``auto`` is fp16 on CUDA and fp32 elsewhere (method 9.1).

    Raises:
        SettingsError: fp16 without CUDA.
    """
    kind = torch.device(device).type
    if precision == "fp16" and kind != "cuda":
        raise SettingsError(f"training.precision fp16 needs CUDA, the device is {kind}; use auto, fp32 or bf16")
    return Compute(torch.device(device), AUTOCAST_TYPES[resolve_precision(precision, kind)])


@dataclass(frozen=True)
class EpochRules:
    """What every step of a training has in common."""

    loss: Loss
    loss_options: LossOptions
    gradient_clip: float
    compute: Compute
    after_step: Callable[[], None] = lambda: None
    reduce: Reduce = keep

    def total_loss(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        weights = deep_supervision_weights(len(outputs))
        return weighted_loss(self.loss, weights, outputs, targets[: len(outputs)])


@dataclass(frozen=True)
class EpochResult:
    """Mean loss, wall time spent waiting for batches, and (validation) counts (3, classes): tp, fp, fn."""

    loss: float
    data_wait_s: float
    counts: np.ndarray | None = None


def train_steps(
    network: Callable[..., Any],
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[BatchLike],
    rules: EpochRules,
) -> EpochResult:
    """Forward, backward, clip, step, for each batch.

    The loss of a step is looked at only when the next one is under way, and nothing else in a step waits for the GPU
    (see :func:`segwright.training.optimizer.build_optimizer`), so that the GPU does not wait for Python. On an H100
    that is 10 to 19 % of a step on large patches.

    Raises:
        Diverged: loss or gradient is not finite; names the batch's cases and statistics. In float16 one step that
            overflows is skipped, see :class:`_SeenLosses`.
    """
    losses = _SeenLosses(scaled=scaler.is_enabled())
    unchecked: tuple[int, BatchLike, OnTheWay] | None = None
    clock = _WaitingTime()
    for step, batch in enumerate(clock.measure(batches)):
        images, targets = batch_to_device(batch, rules.compute.device)
        optimizer.zero_grad(set_to_none=True)
        with rules.compute.autocast():
            outputs = as_list(network(images))
        loss = rules.total_loss(outputs, targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, rules.gradient_clip)
        scaler.step(optimizer)
        scaler.update()
        if unchecked is not None:
            losses.look(*unchecked)
        # a scaled gradient may overflow: the scaler skips that step and lowers its scale
        seen = loss.detach() if scaler.is_enabled() else torch.stack((loss.detach(), norm.detach()))
        unchecked = (step, batch, OnTheWay(seen))
        rules.after_step()
    if unchecked is not None:
        losses.look(*unchecked)
    return EpochResult(losses.mean(), clock.waited_s)


@torch.no_grad()
def validation_steps(network: Callable[..., Any], batches: Iterable[BatchLike], rules: EpochRules) -> EpochResult:
    """Loss over all heads and counts of the full-resolution head (method 9.2, 9.3)."""
    losses: list[Tensor] = []
    counts: Tensor | None = None
    clock = _WaitingTime()
    for batch in clock.measure(batches):
        images, targets = batch_to_device(batch, rules.compute.device)
        with rules.compute.autocast():
            outputs = as_list(network(images))
        losses.append(rules.total_loss(outputs, targets))
        found = hard_counts(outputs[0], targets[0], rules.loss_options)
        counts = found if counts is None else counts + found
        rules.after_step()
    if counts is None:
        return EpochResult(math.nan, clock.waited_s)
    mean_loss = float(torch.stack(losses).cpu().double().mean())  # MPS has no double precision
    return EpochResult(mean_loss, clock.waited_s, rules.reduce(counts).cpu().numpy())


def batch_to_device(batch: BatchLike, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """The batch as tensors on ``device``; on the CPU they share the arrays' memory."""

    def there(values: np.ndarray | Tensor) -> Tensor:
        return values if isinstance(values, Tensor) else to_device(values, device)

    return there(batch.images), [there(target) for target in batch.targets]


def as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The heads' outputs, high to low resolution; a network without deep supervision gives one tensor."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class _WaitingTime:
    """Measures how long an iterator lets its user wait."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def measure(self, batches: Iterable[BatchLike]) -> Iterator[BatchLike]:
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.waited_s += time.perf_counter() - started
            if batch is None:
                return
            yield batch


class _SeenLosses:
    """Losses of an epoch's steps that are over.

    In float16 a forward pass may overflow although images and weights are sound. Its gradients are not finite either,
    so the scaler skips the step and lowers its scale, and the training goes on, as v2's does. Such a loss is no part of
    the mean.
    """

    def __init__(self, scaled: bool) -> None:
        self._scaled, self._skipped = scaled, 0
        self._finite: list[float] = []

    def look(self, step: int, batch: BatchLike, seen: OnTheWay) -> None:
        """Take the loss of a step.

        Raises:
            Diverged: it, or its gradient, is not finite, and the scaler cannot be expected to help.
        """
        values = seen.values()
        if all(math.isfinite(value) for value in values):
            self._finite.append(values[0])
            self._skipped = 0
            return
        self._skipped += 1
        if self._scaled and self._skipped < _MOST_SKIPPED and bool(torch.as_tensor(batch.images).isfinite().all()):
            log.warning(
                "step %d, cases %s: the loss is not finite in half precision; the step is skipped",
                step,
                ", ".join(batch.case_ids),
            )
            return
        what = "loss" if not math.isfinite(values[0]) else "gradient"
        raise Diverged(
            f"the {what} is not finite (loss {values[0]:g}) in step {step}, {describe(batch)}. If the images are "
            "sound, lower training.learning_rate, set training.on_divergence: rollback, or use precision fp32; the "
            "state of the last good epoch is kept"
        )

    def mean(self) -> float:
        """Raises Diverged where no step of the epoch had a finite loss."""
        if not self._finite:
            raise Diverged(
                "no step of this epoch had a finite loss in half precision; use training.precision: fp32 or bf16, or "
                "lower training.learning_rate; the state of the last good epoch is kept"
            )
        return float(np.mean(self._finite))


def describe(batch: BatchLike) -> str:
    """Cases, per-sample intensity statistics and labels of a batch, for an error message."""
    images, target = (torch.as_tensor(values).cpu().numpy() for values in (batch.images, batch.targets[0]))
    samples = []
    for case_id, image in zip(batch.case_ids, images, strict=True):
        finite = np.isfinite(image)
        bad = int(image.size - finite.sum())
        known = image[finite] if finite.any() else np.zeros(1)
        samples.append(
            f"{case_id}: {bad} of {image.size} voxels not finite, "
            f"min {known.min():.4g}, mean {known.mean():.4g}, max {known.max():.4g}"
        )
    labels = np.unique(target).tolist()[:20]
    return f"with the cases [{'; '.join(samples)}] and target values {labels}"
