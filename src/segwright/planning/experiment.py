"""Experiment planning of nnU-Net v2: from a fingerprint to plans, with a reason for every value (method 3).

Order of decisions: full-resolution spacing, axis order, median shape, 3d_fullres, 3d_lowres with its cascade, 2d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from segwright.core.errors import MALFORMED, PlansError, brief
from segwright.core.plans import (
    RESAMPLE_IMAGE,
    RESAMPLE_LABEL,
    RESAMPLE_LOGITS,
    Configuration,
    IntensityStatistics,
    Plans,
)
from segwright.core.settings import PlanningSettings
from segwright.planning import reasons as explain
from segwright.planning.low_resolution import plan_low_resolution
from segwright.planning.network_plan import Budget, NetworkPlan, PlannerNumbers, plan_network
from segwright.planning.normalization import choose_normalization
from segwright.planning.reasons import Reasons
from segwright.planning.spacing import check_fingerprint, full_resolution_spacing, median_shape_at, transposition


@dataclass(frozen=True)
class PlanningInputs:
    """All that plans depend on.

    Attributes:
        fingerprint: content of dataset_fingerprint.json (method 2.3).
        dataset_facts: content of dataset.json.
        reader: name of the image reader, written into the plans.
    """

    fingerprint: Mapping[str, Any]
    dataset_facts: Mapping[str, Any]
    settings: PlanningSettings
    dataset_name: str
    reader: str

    @property
    def channel_names(self) -> tuple[str, ...]:
        """In the order of the channel files, whatever the order of the keys in dataset.json."""
        return channel_names_of(self.dataset_facts)

    @property
    def num_training(self) -> int:
        return int(self.dataset_facts["numTraining"])

    @property
    def num_labels(self) -> int:
        """Entries of ``labels``, background and ignore label included; a region counts as one."""
        return len(self.dataset_facts["labels"])


def plan_dataset(inputs: PlanningInputs, numbers: PlannerNumbers) -> tuple[Plans, Reasons]:
    """Plan all configurations of a dataset.

    Raises:
        PlansError: fingerprint or dataset.json cannot be planned from, or nothing fits the memory target.
    """
    check_fingerprint(inputs.fingerprint)
    settings = inputs.settings
    target = full_resolution_spacing(inputs.fingerprint, settings.spacing_mm)
    forward, backward = transposition(target.spacing_mm, settings.transpose)
    spacing = tuple(target.spacing_mm[axis] for axis in forward)
    median = median_shape_at(inputs.fingerprint, target.spacing_mm, forward)
    budget = Budget(numbers, settings, inputs.num_labels, dataset_voxels=prod(median) * inputs.num_training)

    full = low = None
    if median[0] != 1:
        full = plan_network(spacing, median, budget)
        low = plan_low_resolution(full, budget, inputs.num_training)
    flat = plan_network(spacing[1:], median[1:], budget)

    make = _EntryMaker(inputs, numbers)
    configurations: dict[str, dict[str, Any]] = {"2d": make.entry("2d", flat, batch_dice=True)}
    notes = [
        *explain.dataset_reasons(len(inputs.fingerprint["spacings"]), target, forward, median, settings.transpose),
        *explain.normalization_reasons(inputs.channel_names, make.schemes, make.masks, make.median_relative_size),
        *explain.network_reasons("2d", flat, budget),
        *explain.flat_reasons(median),
    ]
    if full is not None and low is not None:
        if low.kept and low.plan is not None:
            entry = make.entry("3d_lowres", low.plan, batch_dice=False, next_stage="3d_cascade_fullres")
            entry["median_image_size_in_voxels"] = [int(edge) for edge in low.plan.median_shape]
            configurations["3d_lowres"] = entry
            low_budget = replace(budget, dataset_voxels=budget.dataset_voxels / low.voxel_ratio)
            notes += explain.network_reasons("3d_lowres", low.plan, low_budget)
            notes += explain.low_resolution_dice()
        configurations["3d_fullres"] = make.entry("3d_fullres", full, batch_dice=low.kept)
        notes += explain.network_reasons("3d_fullres", full, budget)
        notes += explain.low_resolution_reasons(low)
        if low.kept:
            notes += explain.cascade_reasons()
            configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans = Plans(
        dataset_name=inputs.dataset_name,
        plans_name=numbers.plans_name,
        original_median_spacing_mm=_median_transposed(inputs.fingerprint["spacings"], forward),
        original_median_shape=tuple(
            round(edge) for edge in _median_transposed(inputs.fingerprint["shapes_after_crop"], forward)
        ),
        reader=inputs.reader,
        transpose_forward=forward,
        transpose_backward=backward,
        configurations=configurations,
        planner=numbers.class_name,
        intensities=_intensities(inputs),
        extras=made_for(inputs.dataset_facts, inputs.channel_names),
    )
    return plans, Reasons(inputs.dataset_name, numbers.class_name, tuple(notes))


def channel_names_of(dataset_facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the image channels in channel order.

    Raises:
        PlansError: dataset.json does not name them.
    """
    declared = dataset_facts.get("channel_names", dataset_facts.get("modality"))
    if not isinstance(declared, Mapping) or not declared or not all(str(key).isdecimal() for key in declared):
        raise PlansError('dataset.json: `channel_names` must map "0", "1", ... to names; for example {"0": "CT"}')
    return tuple(str(declared[index]) for index in sorted(declared, key=int))


def made_for(dataset_facts: Mapping[str, Any], channel_names: tuple[str, ...]) -> dict[str, Any]:
    """What plans remember of their dataset, to compare when they are pinned for another one."""
    return {"channel_names": list(channel_names), "labels": dict(dataset_facts["labels"])}


class _EntryMaker:
    """Turns network plans into v2's configuration entries; holds what all of them share."""

    def __init__(self, inputs: PlanningInputs, numbers: PlannerNumbers) -> None:
        self.numbers = numbers
        self.median_relative_size = float(inputs.fingerprint["median_relative_size_after_cropping"])
        self.schemes, self.masks = choose_normalization(inputs.channel_names, self.median_relative_size)

    def entry(self, name: str, plan: NetworkPlan, *, batch_dice: bool, next_stage: str | None = None) -> dict[str, Any]:
        shared = name in ("2d", "3d_fullres")
        prefix = self.numbers.shared_plans_name if shared else self.numbers.plans_name
        return Configuration(
            name=name,
            data_identifier=f"{prefix}_{name}",
            batch_size=plan.batch_size,
            patch_size=plan.patch_size,
            median_size_voxels=plan.median_shape,
            spacing_mm=plan.spacing_mm,
            normalization_schemes=self.schemes,
            use_mask_for_norm=self.masks,
            resampling_image=RESAMPLE_IMAGE,
            resampling_label=RESAMPLE_LABEL,
            resampling_logits=RESAMPLE_LOGITS,
            architecture=plan.architecture,
            batch_dice=batch_dice,
            next_stages=() if next_stage is None else (next_stage,),
        ).to_json()


def _intensities(inputs: PlanningInputs) -> tuple[IntensityStatistics, ...]:
    recorded = inputs.fingerprint["foreground_intensity_properties_per_channel"]
    if not isinstance(recorded, Mapping):
        raise PlansError("dataset_fingerprint.json: the intensities are no object; inspect the dataset again")
    needed = len(inputs.channel_names)
    missing = [str(channel) for channel in range(needed) if str(channel) not in recorded]
    if missing:
        raise PlansError(
            f"dataset_fingerprint.json has no intensities of channel {', '.join(missing)}, but dataset.json declares "
            f"{needed} channels; inspect the dataset again"
        )
    try:
        return tuple(IntensityStatistics.from_json(recorded[key]) for key in sorted(recorded, key=int))
    except MALFORMED as problem:
        text = brief(repr(problem))
        raise PlansError(f"dataset_fingerprint.json: intensities are not valid ({text}); inspect again") from problem


def _median_transposed(values: Any, transpose_forward: tuple[int, ...]) -> tuple[float, ...]:
    median = np.median(np.array(values, dtype=float), axis=0)
    return tuple(float(median[axis]) for axis in transpose_forward)
