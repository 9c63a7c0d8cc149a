"""Batches of a training: which samples they hold, and how one is made.

A batch depends on (seed, epoch, step, training or validation) and the data alone: not on who makes it, when, or how
many workers there are. So a training that was interrupted sees the same batches as one that was not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from segwright.core.errors import TrainingError
from segwright.core.registry import load_plugins
from segwright.core.settings import TrainingSettings
from segwright.core.slices import TrainPlan
from segwright.training.augmentation.pipeline import SampleDraw, SamplePipeline, build_pipeline
from segwright.training.previous_stage import read_previous_stage
from segwright.training.sampling import CaseWindow, draw_start, must_show_foreground, sample_generator

if TYPE_CHECKING:
    from segwright.preprocessing.store import PreprocessedStore, StoredCase

_OPEN_CASES = 64  # memory-mapped files kept open per process; each takes a file descriptor
_TARGET_LABELS, _TARGET_REGIONS = np.dtype(np.int16), np.dtype(bool)


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: (samples, channels, [z,] y, x) float32.
        targets: one array a deep-supervision scale, high to low resolution: (samples, 1, ...) int16 labels (ignore
            label included), or (samples, regions, ...) bool with the ignore mask as last channel if there is one.
        case_ids: the case of each sample.
    """

    images: np.ndarray
    targets: list[np.ndarray]
    case_ids: tuple[str, ...]


@dataclass(frozen=True)
class BatchLayout:
    """Shapes and types of every batch of a source."""

    image_shape: tuple[int, ...]
    target_shapes: tuple[tuple[int, ...], ...]
    target_dtype: np.dtype

    @property
    def size_bytes(self) -> int:
        target_values = sum(int(np.prod(shape)) for shape in self.target_shapes)
        return int(np.prod(self.image_shape)) * 4 + target_values * self.target_dtype.itemsize

    def views(self, memory: memoryview | bytearray | np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Images and targets as arrays over ``size_bytes`` bytes of memory."""
        images = np.ndarray(self.image_shape, np.float32, memory)  # type: ignore[arg-type]
        position, targets = images.nbytes, []
        for shape in self.target_shapes:
            targets.append(np.ndarray(shape, self.target_dtype, memory, position))  # type: ignore[arg-type]
            position += targets[-1].nbytes
        return images, targets


@dataclass(frozen=True)
class Filled:
    """What is told of a batch that was written into memory.

    Attributes:
        used_bytes: how much of the memory it takes, from its beginning.
        draws: how each sample is to be augmented, where that is not done yet.
    """

    case_ids: tuple[str, ...]
    used_bytes: int
    draws: tuple[SampleDraw, ...] = ()


MadeBatch = TypeVar("MadeBatch", covariant=True)


class Source(Protocol[MadeBatch]):
    """What makes batches. Must be picklable; workers get a copy, and write into memory that the parent reads."""

    @property
    def slot_bytes(self) -> int:
        """The most memory a batch takes."""

    def fill(self, epoch: int, step: int, memory: np.ndarray, announce: Callable[[str], None] | None = None) -> Filled:
        """Write a batch into memory (``slot_bytes`` uint8); ``announce`` hears of each case before it is read."""

    def batch(self, memory: np.ndarray, filled: Filled) -> MadeBatch:
        """The batch in that memory, of which the first ``used_bytes`` are enough; it shares them."""


class CaseSource:
    """Where the samples of stored cases lie; what is made of them is a subclass's matter.

    Args:
        index: index.json of the preprocessed store.
        case_ids: the cases to draw from, uniformly and with replacement (method 5.1).
        settings: resolved training settings.
        next_stage: for a cascade, next_stage.json of the previous stage: its label maps on this configuration's grid.
        training: whether samples are augmented.
        plugins: files that register the augmentation preset, imported where batches are made.

    Raises:
        TrainingError: there are no cases, or a cascade has no label maps of its previous stage.
    """

    def __init__(
        self,
        *,
        index: Path,
        case_ids: Sequence[str],
        plan: TrainPlan,
        settings: TrainingSettings,
        training: bool,
        next_stage: Path | None = None,
        plugins: Sequence[Path] = (),
    ) -> None:
        if not case_ids:
            raise TrainingError("there are no cases to draw from; give the fold at least one, or more folds fewer")
        if plan.previous_stage is not None and next_stage is None:
            raise TrainingError(
                f"{plan.configuration}: the label maps of its previous stage {plan.previous_stage} are missing; "
                f"train and predict every fold of {plan.previous_stage} first"
            )
        self.index, self.case_ids, self.plan, self.settings = index, tuple(case_ids), plan, settings
        self.training, self.next_stage, self.plugins = training, next_stage, tuple(plugins)
        self._open_here: _OpenFiles | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open_here": None}  # open files and registered plugins belong to one process

    @property
    def pipeline(self) -> SamplePipeline:
        return self._opened.pipeline

    def windows(
        self, epoch: int, step: int, announce: Callable[[str], None] | None = None
    ) -> Iterator[tuple[str, CaseWindow, np.random.Generator]]:
        """Of each sample the case, the window it is taken from, and the generator of its further draws."""
        for sample in range(self.plan.batch_size):
            rng = sample_generator(self.settings.seed, epoch, step, sample, self.training)
            case_id = self.case_ids[int(rng.integers(len(self.case_ids)))]
            if announce is not None:
                announce(case_id)
            yield case_id, self._window(case_id, sample, rng), rng

    def _window(self, case_id: str, sample: int, rng: np.random.Generator) -> CaseWindow:
        plan, settings = self.plan, self.settings
        case, previous_zyx = self._opened.case(case_id)
        if settings.probabilistic_oversampling:
            foreground = bool(rng.random() < settings.foreground_share)
        else:
            foreground = must_show_foreground(sample, plan.batch_size, settings.foreground_share)
        flat = (1,) if plan.is_2d else ()
        loader_patch = (*flat, *self.pipeline.loader_patch_size)
        start = draw_start(
            rng,
            case.image_czyx.shape[1:],
            loader_patch,
            (*flat, *plan.patch_size),
            case.class_locations or {},
            foreground,
            plan.labels.annotated_key,
            plan.labels.ignore_label is not None,
        )
        assert case.label_zyx is not None  # checked when the case was opened
        label_maps = (case.label_zyx,) if previous_zyx is None else (case.label_zyx, previous_zyx)
        return CaseWindow(case.image_czyx, label_maps, start, loader_patch, plan.is_2d)

    @property
    def _opened(self) -> _OpenFiles:
        if self._open_here is None:
            self._open_here = _OpenFiles(self)
        return self._open_here


class BatchSource(CaseSource):
    """Batches of stored cases, augmented if ``training``."""

    @property
    def layout(self) -> BatchLayout:
        pipeline, plan = self.pipeline, self.plan
        target_channels = 1 if pipeline.regions is None else len(pipeline.regions)
        return BatchLayout(
            (plan.batch_size, plan.num_input_channels, *plan.patch_size),
            tuple((plan.batch_size, target_channels, *shape) for shape in pipeline.target_shapes),
            _TARGET_LABELS if pipeline.regions is None else _TARGET_REGIONS,
        )

    @property
    def slot_bytes(self) -> int:
        return self.layout.size_bytes

    def make(self, epoch: int, step: int) -> Batch:
        """The batch of this epoch and step, in new memory."""
        memory = np.empty(self.slot_bytes, np.uint8)
        return self.batch(memory, self.fill(epoch, step, memory))

    def fill(self, epoch: int, step: int, memory: np.ndarray, announce: Callable[[str], None] | None = None) -> Filled:
        """Augmented images, then targets, as the :attr:`layout` has them."""
        layout, case_ids = self.layout, []
        images, targets = layout.views(memory)
        for sample, (case_id, window, rng) in enumerate(self.windows(epoch, step, announce)):
            image, sample_targets = self.pipeline(window, rng)
            images[sample] = image
            for target, values in zip(targets, sample_targets, strict=True):
                target[sample] = values
            case_ids.append(case_id)
        return Filled(tuple(case_ids), layout.size_bytes)

    def batch(self, memory: np.ndarray, filled: Filled) -> Batch:
        return Batch(*self.layout.views(memory), filled.case_ids)


class _OpenFiles:
    """What a source holds in the process that makes its batches: the pipeline and recently used cases."""

    def __init__(self, source: CaseSource) -> None:
        from segwright.preprocessing.store import PreprocessedStore

        load_plugins(source.plugins)
        self.pipeline: SamplePipeline = build_pipeline(source.plan, source.settings, source.training)
        self._store: PreprocessedStore = PreprocessedStore(source.index)
        self._maps = None
        if source.plan.previous_stage is not None and source.next_stage is not None:
            self._maps = read_previous_stage(source.next_stage, source.plan.configuration)
        self._cases: OrderedDict[str, tuple[StoredCase, np.ndarray | None]] = OrderedDict()

    def case(self, case_id: str) -> tuple[StoredCase, np.ndarray | None]:
        """The stored case and, in a cascade, its previous stage's label map (z, y, x)."""
        if case_id in self._cases:
            self._cases.move_to_end(case_id)
            return self._cases[case_id]
        case = self._store.open(case_id)
        if case.label_zyx is None:
            raise TrainingError(f"case {case_id}: its stored file has no label map, so it cannot be trained with")
        previous_zyx = None if self._maps is None else self._maps.open(case_id, case.label_zyx.shape)
        self._cases[case_id] = case, previous_zyx
        if len(self._cases) > _OPEN_CASES:
            self._cases.popitem(last=False)
        return self._cases[case_id]
