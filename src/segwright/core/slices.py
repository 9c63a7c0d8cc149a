"""Slices of the plans: what each later stage depends on, and nothing else (design, decision 5).

A changed batch size changes the train slice of one configuration and preprocesses nothing again. Slices carry no time
and no absolute path, and their JSON has sorted keys: content equality is what keeps jobs from running.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from segwright.core.architecture import Architecture
from segwright.core.errors import MALFORMED, DamagedFileError, SegwrightError, brief
from segwright.core.files import json_digest, read_json
from segwright.core.labels import Labels
from segwright.core.plans import (
    RESAMPLE_IMAGE,
    RESAMPLE_LABEL,
    RESAMPLE_LOGITS,
    IntensityStatistics,
    Plans,
    Resampling,
    axis_order,
)

PATCH_MAX = 1 << 14


@dataclass(frozen=True)
class PreprocessPlan:
    """All that preprocessed arrays depend on besides the case itself: the *preprocess slice*.

    Attributes:
        data_name: root of the configuration's ``inherits_from`` chain; names the folder for people.
        spacing_mm: target spacing, transposed order; two entries mean 2-D, the slice axis keeps its spacing.
        intensities: per channel, only where the scheme uses dataset statistics (CT), else None.
        label_resize: ``argmax`` (v2 now) or ``threshold`` (v1 and older v2), method 4.5.
        order_of_steps: ``normalize_first`` (v2) or ``resample_first`` (v1).
    """

    data_name: str
    channel_names: tuple[str, ...]
    labels: Labels
    reader: str
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    intensities: tuple[IntensityStatistics | None, ...]
    resampling_image: Resampling = RESAMPLE_IMAGE
    resampling_label: Resampling = RESAMPLE_LABEL
    label_resize: Literal["argmax", "threshold"] = "argmax"
    order_of_steps: Literal["normalize_first", "resample_first"] = "normalize_first"

    @property
    def is_2d(self) -> bool:
        return len(self.spacing_mm) == 2

    def target_spacing_mm(self, spacing_mm: Sequence[float]) -> tuple[float, ...]:
        """Spacing of the stored grid of an image of this spacing, both in transposed order: always three axes."""
        return (spacing_mm[0], *self.spacing_mm) if self.is_2d else self.spacing_mm

    @property
    def data_id(self) -> str:
        """Name of the store: readable root plus a digest of the whole slice."""
        return f"{self.data_name}-{json_digest(self.to_json())[:12]}"

    def to_json(self) -> dict[str, Any]:
        return {
            "data_name": self.data_name,
            "channel_names": list(self.channel_names),
            **self.labels.to_json(),
            "reader": self.reader,
            "transpose_forward": list(self.transpose_forward),
            "transpose_backward": list(self.transpose_backward),
            "spacing_mm": list(self.spacing_mm),
            "normalization_schemes": list(self.normalization_schemes),
            "use_mask_for_norm": list(self.use_mask_for_norm),
            "intensities": [None if statistics is None else statistics.to_json() for statistics in self.intensities],
            "resampling_image": self.resampling_image.to_json(),
            "resampling_label": self.resampling_label.to_json(),
            "label_resize": self.label_resize,
            "order_of_steps": self.order_of_steps,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> PreprocessPlan:
        """Raises one of MALFORMED, or DatasetError for the labels, where the record is not valid."""
        plan = PreprocessPlan(
            data_name=record["data_name"],
            channel_names=tuple(record["channel_names"]),
            labels=Labels.from_json(record),
            reader=record["reader"],
            transpose_forward=tuple(record["transpose_forward"]),
            transpose_backward=tuple(record["transpose_backward"]),
            spacing_mm=tuple(record["spacing_mm"]),
            normalization_schemes=tuple(record["normalization_schemes"]),
            use_mask_for_norm=tuple(record["use_mask_for_norm"]),
            intensities=tuple(None if v is None else IntensityStatistics.from_json(v) for v in record["intensities"]),
            resampling_image=Resampling.from_json(record["resampling_image"]),
            resampling_label=Resampling.from_json(record["resampling_label"]),
            label_resize=record["label_resize"],
            order_of_steps=record["order_of_steps"],
        )
        plan._check()
        return plan

    def _check(self) -> None:
        """Refuse what no preprocessing can work with. Raises ValueError or TypeError."""
        require_texts("names", (self.data_name, self.reader, *self.channel_names, *self.normalization_schemes))
        if not all(type(axis) is int for axis in (*self.transpose_forward, *self.transpose_backward)):
            raise TypeError("transpose_forward and transpose_backward must be whole numbers")
        if axis_order(self.transpose_forward) != self.transpose_forward:
            raise ValueError("transpose_forward")
        if tuple(self.transpose_forward[axis] for axis in axis_order(self.transpose_backward)) != (0, 1, 2):
            raise ValueError("transpose_backward does not undo transpose_forward")
        require_spacing("spacing_mm", self.spacing_mm)
        channels = len(self.normalization_schemes)
        if not channels or not len(self.use_mask_for_norm) == len(self.intensities) == channels:
            raise ValueError("normalization_schemes, use_mask_for_norm and intensities differ in length")
        if not all(isinstance(used, bool) for used in self.use_mask_for_norm):
            raise TypeError("use_mask_for_norm")
        if self.label_resize not in ("argmax", "threshold"):
            raise ValueError(f"label_resize {self.label_resize!r}")
        if self.order_of_steps not in ("normalize_first", "resample_first"):
            raise ValueError(f"order_of_steps {self.order_of_steps!r}")


@dataclass(frozen=True)
class TrainPlan:
    """What a training needs of the plans: the *train slice*. ``num_channels`` counts image channels only."""

    configuration: str
    num_channels: int
    labels: Labels
    patch_size: tuple[int, ...]
    batch_size: int
    architecture: Architecture
    batch_dice: bool
    use_mask_for_norm: tuple[bool, ...]
    previous_stage: str | None = None

    @property
    def is_2d(self) -> bool:
        return len(self.patch_size) == 2

    @property
    def num_input_channels(self) -> int:
        """Input channels of the network: a cascade adds one per foreground label."""
        return self.num_channels + (len(self.labels.foreground_labels) if self.previous_stage else 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "configuration": self.configuration,
            "num_channels": self.num_channels,
            **self.labels.to_json(),
            "patch_size": list(self.patch_size),
            "batch_size": self.batch_size,
            "architecture": self.architecture.to_json(),
            "batch_dice": self.batch_dice,
            "use_mask_for_norm": list(self.use_mask_for_norm),
            "previous_stage": self.previous_stage,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> TrainPlan:
        plan = TrainPlan(
            configuration=record["configuration"],
            num_channels=int(record["num_channels"]),
            labels=Labels.from_json(record),
            patch_size=tuple(record["patch_size"]),
            batch_size=int(record["batch_size"]),
            architecture=Architecture.from_json(record["architecture"]),
            batch_dice=bool(record["batch_dice"]),
            use_mask_for_norm=tuple(record["use_mask_for_norm"]),
            previous_stage=record["previous_stage"],
        )
        require_texts("names", (plan.configuration, plan.previous_stage or ""))
        require_patch(plan.patch_size, plan.architecture)
        if plan.batch_size < 1 or plan.num_channels < 1:
            raise ValueError("batch_size and num_channels must be positive")
        return plan


@dataclass(frozen=True)
class PredictPlan:
    """What prediction needs of the plans, from raw image to label map on its grid: the *predict slice*."""

    configuration: str
    preprocess: PreprocessPlan
    patch_size: tuple[int, ...]
    architecture: Architecture
    resampling_logits: Resampling = RESAMPLE_LOGITS
    previous_stage: str | None = None
    next_stages: tuple[str, ...] = ()

    @property
    def labels(self) -> Labels:
        return self.preprocess.labels

    @property
    def is_2d(self) -> bool:
        return len(self.patch_size) == 2

    @property
    def num_input_channels(self) -> int:
        channels = len(self.preprocess.normalization_schemes)
        return channels + (len(self.labels.foreground_labels) if self.previous_stage else 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "configuration": self.configuration,
            "preprocess": self.preprocess.to_json(),
            "patch_size": list(self.patch_size),
            "architecture": self.architecture.to_json(),
            "resampling_logits": self.resampling_logits.to_json(),
            "previous_stage": self.previous_stage,
            "next_stages": list(self.next_stages),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> PredictPlan:
        plan = PredictPlan(
            configuration=record["configuration"],
            preprocess=PreprocessPlan.from_json(record["preprocess"]),
            patch_size=tuple(record["patch_size"]),
            architecture=Architecture.from_json(record["architecture"]),
            resampling_logits=Resampling.from_json(record["resampling_logits"]),
            previous_stage=record["previous_stage"],
            next_stages=tuple(record["next_stages"]),
        )
        require_texts("names", (plan.configuration, plan.previous_stage or "", *plan.next_stages))
        require_patch(plan.patch_size, plan.architecture)
        if len(plan.preprocess.spacing_mm) != len(plan.patch_size):
            raise ValueError("patch_size and spacing_mm do not have the same number of axes")
        return plan


def preprocess_slice(
    plans: Plans,
    name: str,
    labels: Labels,
    channel_names: tuple[str, ...],
    label_resize: Literal["argmax", "threshold"] = "argmax",
    order_of_steps: Literal["normalize_first", "resample_first"] = "normalize_first",
) -> PreprocessPlan:
    """Cut the preprocess slice of one configuration out of the plans."""
    configuration = plans.configuration(name)
    uses_dataset_statistics = [scheme == "CTNormalization" for scheme in configuration.normalization_schemes]
    return PreprocessPlan(
        data_name=plans.lineage(name)[-1],
        channel_names=channel_names,
        labels=labels,
        reader=plans.reader,
        transpose_forward=plans.transpose_forward,
        transpose_backward=plans.transpose_backward,
        spacing_mm=configuration.spacing_mm,
        normalization_schemes=configuration.normalization_schemes,
        use_mask_for_norm=configuration.use_mask_for_norm,
        intensities=tuple(
            plans.intensities[channel] if used else None for channel, used in enumerate(uses_dataset_statistics)
        ),
        resampling_image=configuration.resampling_image,
        resampling_label=configuration.resampling_label,
        label_resize=label_resize,
        order_of_steps=order_of_steps,
    )


def train_slice(plans: Plans, name: str, labels: Labels) -> TrainPlan:
    """Cut the train slice of one configuration out of the plans."""
    configuration = plans.configuration(name)
    return TrainPlan(
        configuration=name,
        num_channels=len(configuration.normalization_schemes),
        labels=labels,
        patch_size=configuration.patch_size,
        batch_size=configuration.batch_size,
        architecture=configuration.architecture,
        batch_dice=configuration.batch_dice,
        use_mask_for_norm=configuration.use_mask_for_norm,
        previous_stage=configuration.previous_stage,
    )


def predict_slice(plans: Plans, name: str, preprocess: PreprocessPlan) -> PredictPlan:
    """Cut the predict slice of one configuration out of the plans."""
    configuration = plans.configuration(name)
    return PredictPlan(
        configuration=name,
        preprocess=preprocess,
        patch_size=configuration.patch_size,
        architecture=configuration.architecture,
        resampling_logits=configuration.resampling_logits,
        previous_stage=configuration.previous_stage,
        next_stages=configuration.next_stages,
    )


def require_texts(what: str, values: Iterable[Any]) -> None:
    """Raises TypeError unless every value is a text."""
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{what}: {brief(value)} is no text")


def require_spacing(what: str, spacing_mm: Sequence[Any]) -> None:
    """Raises ValueError unless there are two or three positive numbers."""
    numbers = all(isinstance(edge, (int, float)) and not isinstance(edge, bool) for edge in spacing_mm)
    if len(spacing_mm) not in (2, 3) or not numbers or not all(0 < edge < math.inf for edge in spacing_mm):
        raise ValueError(f"{what} is {brief(spacing_mm)}")


def require_patch(patch_size: Sequence[Any], architecture: Architecture) -> None:
    """Raises ValueError unless a patch is positive whole numbers, as many as the network has axes."""
    if len(patch_size) != architecture.dimensions or not all(
        isinstance(edge, int) and not isinstance(edge, bool) and 1 <= edge <= PATCH_MAX for edge in patch_size
    ):
        raise ValueError(f"patch_size is {brief(patch_size)}")


Slice = TypeVar("Slice", PreprocessPlan, TrainPlan, PredictPlan)


def read_slice(path: Path | str, kind: type[Slice]) -> Slice:
    """Read a slice from its file.

    Raises:
        DamagedFileError: it is missing, or not such a slice.
    """
    record = read_json(path)
    try:
        return kind.from_json(record)
    except (*MALFORMED, SegwrightError) as problem:
        text = brief(repr(problem), 300)
        raise DamagedFileError(path, f"not a {kind.__name__} of this segwright ({text})") from problem
