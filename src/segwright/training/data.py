"""Where the batches of a training come from, and what they depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from segwright.core.files import json_digest, read_json
from segwright.core.progress import progress
from segwright.core.settings import TrainingSettings
from segwright.training.loop import BatchLike
from segwright.training.request import TrainingRequest

if TYPE_CHECKING:
    from segwright.preprocessing.store import PreprocessedStore


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
    """

    identity: Mapping[str, Any]
    mirror_axes: tuple[int, ...]
    training: Callable[[], Batches]
    validation: Callable[[], Batches] | None


def open_data(request: TrainingRequest, settings: TrainingSettings) -> TrainingData:
    """Stored cases through the loader: the data of a real training."""
    from segwright.preprocessing.store import PreprocessedStore
    from segwright.training.augmentation.on_device.batches import AugmentedBatches
    from segwright.training.augmentation.on_device.dispatch import require_device_versions
    from segwright.training.augmentation.pipeline import build_pipeline
    from segwright.training.loader import BatchSource, mirror_axes
    from segwright.training.parts import PartSource
    from segwright.training.workers import BatchLoader

    store = PreprocessedStore(request.index)
    cases = sorted({*request.fold.train, *request.fold.val})
    identity: dict[str, Any] = {
        "data_id": store.data_id,
        "cases": json_digest({case_id: store.digest(case_id) for case_id in cases}),
    }
    if request.next_stage is not None:
        maps = _maps_of(request, read_json(request.next_stage))
        identity["previous_stage"] = json_digest({case_id: maps.get(case_id, {}).get("digest") for case_id in cases})

    on_device = augments_on_device(request, settings)
    pipeline = build_pipeline(request.plan, settings, training=True)
    if on_device:
        require_device_versions(pipeline, request.plan.num_channels)

    def loader(training: bool) -> Batches:
        cases = request.fold.train if training else request.fold.val
        require_intact(store, cases, request.workers + 1)
        made: dict[str, Any] = {
            "index": request.index, "case_ids": cases, "plan": request.plan, "settings": settings,
            "training": training, "next_stage": request.next_stage, "plugins": request.plugins,
        }  # fmt: skip
        # validation batches are not augmented and few: a quarter of the workers keeps up
        workers = request.workers if training else min(request.workers, max(1, request.workers // 4))
        if training and on_device:
            drawn = BatchLoader(PartSource(**made), workers)
            return AugmentedBatches(drawn, pipeline, torch.device(request.device))
        return BatchLoader(BatchSource(**made), workers)

    return TrainingData(
        identity=identity,
        mirror_axes=mirror_axes(request.plan, settings),
        training=lambda: loader(True),
        validation=(lambda: loader(False)) if request.fold.val else None,
    )


def augments_on_device(request: TrainingRequest, settings: TrainingSettings) -> bool:
    """Whether training batches are augmented where the network trains.

    A cascade's are not, whatever the setting: its transforms look for connected components, which no device does well.
    """
    if settings.augment_on == "device" and request.plan.previous_stage is not None:
        log.info("%s: training.augment_on: device is not for cascades; the loader's processes augment",
                 request.plan.configuration)  # fmt: skip
        return False
    return settings.augment_on == "device"


def require_intact(store: PreprocessedStore, case_ids: Sequence[str], threads: int) -> None:
    """Read every stored case once and compare it with its recorded digest, before anything is learnt from it.

    Patches are read from mapped files later, where a flipped bit would go unnoticed. One pass over the data, at the
    speed of the disk or of SHA-256 in ``threads`` threads (about 1 GB/s each), is little against a training.

    Raises:
        DamagedFileError: names the first case that is missing or altered.
    """
    with ThreadPoolExecutor(threads) as pool, progress("check the stored cases", len(case_ids)) as bar:
        for case_id, _ in zip(case_ids, pool.map(store.verify, case_ids), strict=True):
            bar.advance(case_id)


def _maps_of(request: TrainingRequest, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Per case {file, digest} for this configuration, from a next_stage.json."""
    return record.get("target", {}).get(request.plan.configuration, {})
