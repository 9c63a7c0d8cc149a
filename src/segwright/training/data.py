"""Where the batches of a training come from, and what they depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from segwright.core.files import json_digest
from segwright.core.settings import TrainingSettings
from segwright.training.host_memory import validation_workers
from segwright.training.intact import require_intact
from segwright.training.loop import BatchLike
from segwright.training.request import TrainingRequest

log = logging.getLogger(__name__)


class Batches(Protocol):
    """Where batches come from; see ``training.workers.BatchLoader``."""

    def epoch(self, epoch: int, steps: int) -> Iterator[BatchLike]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class TrainingData:
    """The batches of a training and what they depend on.

    Attributes:
        identity: digests of the data; part of what a state belongs to.
        mirror_axes: spatial axes flipped in training, and therefore at prediction.
        training, validation: open a source of batches; validation None: no validation cases.
        check: compares all data with their recorded digests, before anything is learnt from them; takes the file that
            notes what is intact, and what to call after each file that was read (``training.intact``). None: nothing
            lies on disk.
    """

    identity: Mapping[str, Any]
    mirror_axes: tuple[int, ...]
    training: Callable[[], Batches]
    validation: Callable[[], Batches] | None
    check: Callable[[Path, Callable[[], None]], None] | None = None


def open_data(request: TrainingRequest, settings: TrainingSettings) -> TrainingData:
    """Stored cases through the loader: the data of a real training."""
    from segwright.preprocessing.store import PreprocessedStore
    from segwright.training.augmentation.on_device.batches import AugmentedBatches
    from segwright.training.augmentation.on_device.dispatch import require_device_versions
    from segwright.training.augmentation.pipeline import build_pipeline, mirror_axes
    from segwright.training.loader import BatchSource
    from segwright.training.parts import PartSource
    from segwright.training.previous_stage import read_previous_stage
    from segwright.training.workers import BatchLoader

    store = PreprocessedStore(request.index)
    cases = sorted({*request.fold.train, *request.fold.val})
    identity: dict[str, Any] = {
        "data_id": store.data_id,
        "cases": json_digest({case_id: store.file(case_id).digest for case_id in cases}),
    }
    files = [store.file(case_id) for case_id in cases]
    if request.next_stage is not None:
        maps = read_previous_stage(request.next_stage, request.plan.configuration)
        identity["previous_stage"] = json_digest({case_id: maps.file(case_id).digest for case_id in cases})
        files += [maps.file(case_id) for case_id in cases]

    on_device = augments_on_device(request, settings)
    pipeline = build_pipeline(request.plan, settings, training=True)
    if on_device:
        require_device_versions(pipeline, request.plan.num_channels)

    def check(noted: Path, after_each: Callable[[], None]) -> None:
        require_intact(files, request.workers + 1, noted, after_each)

    def loader(training: bool) -> Batches:
        case_ids = request.fold.train if training else request.fold.val
        made: dict[str, Any] = {
            "index": request.index, "case_ids": case_ids, "plan": request.plan, "settings": settings,
            "training": training, "next_stage": request.next_stage, "plugins": request.plugins,
        }  # fmt: skip
        workers = request.workers if training else validation_workers(request.workers)
        if training and on_device:
            drawn = BatchLoader(PartSource(**made), workers)
            return AugmentedBatches(drawn, pipeline, torch.device(request.device))
        return BatchLoader(BatchSource(**made), workers)

    return TrainingData(
        identity=identity,
        mirror_axes=mirror_axes(request.plan, settings),
        training=lambda: loader(True),
        validation=(lambda: loader(False)) if request.fold.val else None,
        check=check,
    )


def augments_on_device(request: TrainingRequest, settings: TrainingSettings) -> bool:
    """Whether training batches are augmented where the network trains.

    A cascade's are not, whatever the setting: its transforms look for connected components, which no device does well.
    """
    if settings.augment_on != "device":
        return False
    if request.plan.previous_stage is not None:
        log.info(
            "%s: training.augment_on: device is not for cascades; the loader's processes augment",
            request.plan.configuration,
        )
        return False
    return True
