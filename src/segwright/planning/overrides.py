"""Values you fix yourself: spacing, patch or batch size of one configuration; everything that follows is re-planned."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from segwright.core.architecture import Architecture
from segwright.core.errors import SettingsError
from segwright.core.plans import STANDARD_CONFIGURATIONS, Configuration, Plans
from segwright.core.settings import ConfigurationOverride
from segwright.planning import reasons as explain
from segwright.planning.experiment import PlanningInputs
from segwright.planning.network_plan import Budget, NetworkPlan, PlannerNumbers, plan_network, plan_network_for_patch
from segwright.planning.reasons import DATASET, Reason
from segwright.planning.spacing import median_shape_at
from segwright.planning.text import millimetres, millions, sizes
from segwright.planning.topology import Topology, derive_topology, nearest_legal_sizes

log = logging.getLogger(__name__)


def apply_overrides(plans: Plans, inputs: PlanningInputs, numbers: PlannerNumbers) -> tuple[Plans, list[Reason]]:
    """Apply ``planning.overrides`` in their order.

    An override changes its own configuration and those that inherit from it. A standard configuration that this
    dataset does not have is passed over with a warning, since settings are shared by datasets.

    Raises:
        SettingsError: the configuration does not exist, the number of axes is wrong, or the patch is not legal.
    """
    reasons: list[Reason] = []
    for name, override in inputs.settings.overrides.items():
        if name not in plans.configurations:
            reasons.append(_passed_over(name, plans))
            continue
        plans, notes = _apply(plans, name, override, inputs, numbers)
        reasons += notes
    return plans, reasons


def _apply(
    plans: Plans, name: str, override: ConfigurationOverride, inputs: PlanningInputs, numbers: PlannerNumbers
) -> tuple[Plans, list[Reason]]:
    before = plans.configuration(name)
    _check_axes(name, before, override)
    changed: dict[str, Any] = {}
    reasons: list[Reason] = []
    if override.spacing_mm is not None or override.patch_size is not None:
        plan, budget = _replan(plans, before, override, inputs, numbers)
        changed = {
            "batch_size": plan.batch_size,
            "patch_size": list(plan.patch_size),
            "median_image_size_in_voxels": list(plan.median_shape),
            "spacing": list(plan.spacing_mm),
            "architecture": _keep_kind(plan.architecture, before.architecture).to_json(),
        }
        if override.spacing_mm is not None and "data_identifier" not in plans.configurations[name]:
            changed["data_identifier"] = f"{plans.plans_name}_{name}"
        reasons += explain.network_reasons(name, plan, budget)
        if override.spacing_mm is not None:
            sentence = f"{millimetres(plan.spacing_mm)}: given by you instead of {millimetres(before.spacing_mm)}."
            reasons.append(Reason(name, "spacing", sentence))
        if override.patch_size is not None:
            reasons.append(Reason(name, "patch", _patch_sentence(plan, budget, before)))
    if override.batch_size is not None:
        planned = changed.get("batch_size", before.batch_size)
        changed["batch_size"] = override.batch_size
        sentence = f"{override.batch_size}: given by you; {planned} was planned."
        reasons.append(Reason(name, "batch size", sentence))
    configurations = {**plans.configurations, name: {**plans.configurations[name], **changed}}
    latest = {(reason.configuration, reason.field): reason for reason in reasons}
    return replace(plans, configurations=configurations), list(latest.values())


def _replan(
    plans: Plans,
    before: Configuration,
    override: ConfigurationOverride,
    inputs: PlanningInputs,
    numbers: PlannerNumbers,
) -> tuple[NetworkPlan, Budget]:
    spacing = before.spacing_mm if override.spacing_mm is None else override.spacing_mm
    median: Sequence[float] = before.median_size_voxels
    if override.spacing_mm is not None:
        median = _median_shape(plans, spacing, inputs)
    voxels = prod(_median_shape(plans, before.spacing_mm, inputs, three_axes=True) if before.is_2d else median)
    budget = Budget(numbers, inputs.settings, inputs.num_labels, voxels * inputs.num_training)
    if override.patch_size is None:
        return plan_network(spacing, median, budget), budget
    topology = _legal_topology(before.name, spacing, override.patch_size, inputs.settings.max_stages)
    return plan_network_for_patch(spacing, median, topology, budget), budget


def _median_shape(
    plans: Plans, spacing_mm: Sequence[float], inputs: PlanningInputs, three_axes: bool = False
) -> tuple[float, ...]:
    """Median shape at a spacing in planned order; a 2-D spacing is completed with the slice axis of the plans."""
    is_2d = len(spacing_mm) == 2
    if is_2d:
        has_full = "3d_fullres" in plans.configurations
        full = plans.configuration("3d_fullres").spacing_mm if has_full else plans.original_median_spacing_mm
        spacing_mm = (full[0], *spacing_mm)
    in_image_order = [spacing_mm[plans.transpose_forward.index(axis)] for axis in range(3)]
    median = median_shape_at(inputs.fingerprint, in_image_order, plans.transpose_forward)
    return median[1:] if is_2d and not three_axes else median


def _legal_topology(
    name: str, spacing_mm: Sequence[float], patch_size: Sequence[int], max_stages: int | None
) -> Topology:
    """The network of a given patch.

    Raises:
        SettingsError: an edge cannot be halved as often as its length asks for; names the nearest edges that can.
    """
    topology = derive_topology(spacing_mm, patch_size, max_stages)
    if topology.patch_size == tuple(patch_size):
        return topology
    problems = []
    for axis, (edge, divisor) in enumerate(zip(patch_size, topology.divisors, strict=True)):
        if edge % divisor:
            nearest = [size for size in nearest_legal_sizes(spacing_mm, patch_size, axis, max_stages) if size]
            choice = " and ".join(str(size) for size in nearest)
            problems.append(f"axis {axis}: {edge} is not divisible by {divisor}, the nearest legal sizes are {choice}")
    raise SettingsError(f"planning.overrides.{name}.patch_size {sizes(patch_size)}: {'; '.join(problems)}")


def _check_axes(name: str, before: Configuration, override: ConfigurationOverride) -> None:
    axes = len(before.patch_size)
    given: Mapping[str, Sequence[float] | None] = {
        "spacing_mm": override.spacing_mm,
        "patch_size": override.patch_size,
    }
    for key, values in given.items():
        if values is not None and (len(values) != axes or not all(value > 0 for value in values)):
            raise SettingsError(
                f"planning.overrides.{name}.{key} is {list(values)} but must be {axes} positive numbers, "
                "one an axis in planned order"
            )


def _keep_kind(planned: Architecture, before: Architecture) -> Architecture:
    """A network of another kind than the planner's (from pinned plans) stays of its kind."""
    if planned.kind == before.kind:
        return planned
    return replace(planned, kind=before.kind, extra=before.extra)


def _patch_sentence(plan: NetworkPlan, budget: Budget, before: Configuration) -> str:
    needs = f"{millions(plan.entries)} of {millions(plan.reference)} million feature-map entries"
    too_big = budget.exceeded_by(plan.entries, plan.is_2d)
    warning = ", more than the memory target allows" if too_big else ""
    if too_big:
        log.warning("the patch %s needs %s%s", sizes(plan.patch_size), needs, warning)
    return f"{sizes(plan.patch_size)}: given by you instead of {sizes(before.patch_size)}; {needs}{warning}."


def _passed_over(name: str, plans: Plans) -> Reason:
    if name not in STANDARD_CONFIGURATIONS:
        near = difflib.get_close_matches(name, plans.configurations, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(
            f"planning.overrides.{name}: there is no such configuration (planned: {', '.join(plans.configurations)})"
            f"{hint}"
        )
    sentence = f"planning.overrides.{name} is not used: this dataset needs no {name}."
    log.warning(sentence)
    return Reason(DATASET, f"override of {name}", sentence)
