"""What one training needs to know. Imports no torch, so that a job can be described before a GPU is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segwright.core.settings import TrainingSettings
from segwright.core.slices import TrainPlan

if TYPE_CHECKING:
    from segwright.splits import Fold


@dataclass(frozen=True)
class TrainingRequest:
    """One fold of one configuration.

    Attributes:
        index: index.json of the preprocessed store.
        output: folder ``.../{configuration}/fold_{fold}``.
        device: ``cpu``, ``cuda`` or ``mps``.
        workers: processes that load and augment; 0: none.
        next_stage: next_stage.json of the previous stage, for a cascade.
        initial_model: model.safetensors to start from.
        deadline: seconds of wall time left; None: no limit.
        plugins: Python files that register networks, losses or augmentations.
    """

    plan: TrainPlan
    settings: TrainingSettings
    index: Path
    fold: Fold
    output: Path
    device: str = "cpu"
    workers: int = 0
    next_stage: Path | None = None
    initial_model: Path | None = None
    deadline: float | None = None
    plugins: tuple[Path, ...] = ()

    @property
    def initial_weights(self) -> Path | None:
        """The weights to start from: the request's, else the settings'."""
        if self.initial_model is not None:
            return self.initial_model
        return None if self.settings.initial_model is None else Path(self.settings.initial_model)
