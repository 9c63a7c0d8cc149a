"""A plugin for tests: the default loss, as slow as the file ``pace`` and as greedy as the file ``appetite`` say.

Both lie in the working folder: seconds a call, and MB that are taken at the first call. So a test can hold a training
while it breaks something, and let it finish afterwards, without using the processor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from segwright.training.loss import LOSSES, Loss, LossOptions, default_loss


@dataclass(frozen=True)
class PacedLoss:
    loss: Loss
    taken: np.ndarray

    def __call__(self, logits: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:
        started, pace = time.monotonic(), Path("pace")
        while pace.is_file() and time.monotonic() - started < float(pace.read_text() or 0):
            time.sleep(0.05)
        return self.loss(logits, target, annotated)


@LOSSES.register("paced")
def paced(options: LossOptions) -> Loss:
    appetite = Path("appetite")
    taken = np.ones(int(appetite.read_text()) * 10**6 // 8) if appetite.is_file() else np.ones(0)
    return PacedLoss(default_loss(options), taken)
